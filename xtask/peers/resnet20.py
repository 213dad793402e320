"""CIFAR's ResNet-20 on Fashion-MNIST in PyTorch: the peer of `striate train xtask/peers/resnet20.toml`.

python resnet20.py train FOLDER [--epochs N] [--seed N] [--threads N]
    FOLDER holds the four .gz files. Prints the accuracy on the test images after each epoch.
python resnet20.py losses FILE
    FILE is of `first_losses` (crates/striate-cli/examples): repeats its steps and prints the largest difference of losses.
"""

import argparse
import json
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from torch import nn

from lenet5 import read
from torch_cuda import cifar_resnet20


def network():
    """In one channel, with the initial values of He 2015 as torchvision has them."""
    model = cifar_resnet20()
    model.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model.to(memory_format=torch.channels_last)


def sgd(model, lr):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def train(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    def part(name):
        images, labels = read(args.folder, name)
        return F.pad((images.float() / 255 - 0.2860) / 0.3530, (2, 2, 2, 2), value=-0.2860 / 0.3530), labels

    (images, labels), (test_images, test_labels) = part("train"), part("t10k")
    model = network()
    optimizer = sgd(model, 0.1)
    steps = args.epochs * -(-len(images) // 128)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    start = time.perf_counter()
    for epoch in range(args.epochs):
        model.train()
        for batch in torch.randperm(len(images)).split(128):
            loss = F.cross_entropy(model(images[batch].to(memory_format=torch.channels_last)), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(test_images.split(256), test_labels.split(256)))
        seconds = time.perf_counter() - start
        print(json.dumps({"seed": args.seed, "epoch": epoch, "accuracy": right / len(test_labels), "seconds": seconds}), flush=True)


def losses(args):
    from safetensors.torch import load_file

    file = load_file(args.file)
    model = network()
    model.load_state_dict({name[5:]: value for name, value in file.items() if name.startswith("init/")})
    optimizer = sgd(model, 0.0)
    worst = 0.0
    for step, (lr, expected) in enumerate(zip(file["rates"].tolist(), file["losses"].tolist())):
        optimizer.param_groups[0]["lr"] = lr
        images = file[f"images/{step}"].to(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(images), file[f"labels/{step}"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        worst = max(worst, abs(loss.item() - expected))
        if step % 20 == 0 or step + 1 == len(file["losses"]):
            print(f"step {step}: {loss.item():.6f}, here {expected:.6f}, largest difference so far {worst:.2e}")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("folder", type=pathlib.Path)
    command.add_argument("--epochs", type=int, default=5)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--threads", type=int, default=2)
    command.set_defaults(run=train)
    command = commands.add_parser("losses")
    command.add_argument("file")
    command.set_defaults(run=losses)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
