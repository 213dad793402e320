"""Writes names.tsv: for each torchvision model, how many entries its state dict has and the SHA-256 of their names and shapes.

The text that is hashed has one line for each entry, sorted by name, such as `conv1.weight 64,3,7,7`.
Made with torchvision 0.28.
"""

import hashlib
import pathlib

import torch
from torchvision import models

NAMES = {
    "alexnet": "alexnet",
    **{f"vgg{depth}": f"vgg{depth}" for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}_bn": f"vgg{depth}-bn" for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "wide_resnet50_2": "wide-resnet50-2",
    "wide_resnet101_2": "wide-resnet101-2",
    "resnext50_32x4d": "resnext50-32x4d",
    "resnext101_32x8d": "resnext101-32x8d",
}

rows = []
for theirs, ours in NAMES.items():
    with torch.device("meta"):
        state = models.get_model(theirs).state_dict()
    lines = sorted(f"{name} {','.join(map(str, tensor.shape))}\n" for name, tensor in state.items())
    rows.append(f"{ours}\t{len(lines)}\t{hashlib.sha256(''.join(lines).encode()).hexdigest()}\n")
pathlib.Path(__file__).with_name("names.tsv").write_text("".join(rows))
