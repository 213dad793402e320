"""Writes resnet18.pth.zip beside this file: a state dict as torchvision's ResNet-18 has it, compressed, with repeating weights.

Made with torch 2.13.0 and torchvision 0.28.0. torch.save compresses nothing; the test unpacks it into such a file again.
"""

import io
import pathlib
import zipfile

import torch
from torchvision.models import resnet18

PERIOD = torch.linspace(-1, 1, 16)


def weights(name, value):
    if value.dim() < 2:
        return torch.ones_like(value) if name.endswith(("weight", "running_var")) else torch.zeros_like(value)
    repeated = PERIOD.repeat(value.numel() // len(PERIOD)).reshape(value.shape[::-1]).permute(*range(value.dim())[::-1])
    return (repeated * value[0].numel() ** -1).contiguous()


state = {name: weights(name, value) for name, value in resnet18().state_dict().items()}
saved = io.BytesIO()
torch.save(state, saved)
with zipfile.ZipFile(saved) as plain, zipfile.ZipFile(
    pathlib.Path(__file__).with_name("resnet18.pth.zip"), "w", zipfile.ZIP_DEFLATED, compresslevel=9
) as packed:
    for entry in plain.infolist():
        packed.writestr(zipfile.ZipInfo(entry.filename), plain.read(entry), zipfile.ZIP_DEFLATED, 9)
