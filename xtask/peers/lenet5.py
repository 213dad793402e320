"""LeNet-5 on Fashion-MNIST in PyTorch, the whole training set in one tensor: the peer of `striate train lenet5 --data fashion-mnist`.

python lenet5.py FOLDER [--epochs N] [--threads N] [--channels-last]

FOLDER holds the four .gz files. Prints one line of JSON an epoch: seconds and images/s of training, without evaluation.
"""

import argparse
import gzip
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def read(folder, part):
    images = gzip.open(folder / f"{part}-images-idx3-ubyte.gz").read()[16:]
    labels = gzip.open(folder / f"{part}-labels-idx1-ubyte.gz").read()[8:]
    images = np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28).copy()
    labels = np.frombuffer(labels, np.uint8).astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images, labels = read(args.folder, "train")
    images = F.pad((images.float() / 255 - 0.2860) / 0.3530, (2, 2, 2, 2), value=-0.2860 / 0.3530)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    steps = -(-len(images) // args.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps * args.epochs)
    for epoch in range(args.epochs):
        start = time.perf_counter()
        order = torch.randperm(len(images))
        loss_sum, correct = 0.0, 0
        for batch in order.split(args.batch_size):
            x, y = images[batch], labels[batch]
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
        seconds = time.perf_counter() - start
        print(json.dumps({"epoch": epoch, "seconds": seconds, "images_per_second": len(images) / seconds}))


if __name__ == "__main__":
    main()
