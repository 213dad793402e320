"""Writes the fixtures of the Grad-CAM test: two small networks, what goes in, and the maps by the papers' formulas.

    python make_fixtures.py    # into the folder of this file

Made with torch 2.13.0, in float64. Derivatives come from autograd alone. Of Grad-CAM++ those of exp(S) up to the third are taken
one place at a time, as its equation 10 has them, so that the closed form for networks of ReLUs, which programs use, is tested
and not assumed.
"""

import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

CLASSES = 3


def pooled():
    """Behind global average pooling, as in residual networks; the maps are those of its second convolution."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES)
    ), 4


def dense():
    """Behind pooling and dense layers, as in AlexNet and VGG."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, CLASSES)
    ), 2


def grad_cam(maps, score):
    """Selvaraju 2017, equations 1 and 2."""
    (gradient,) = torch.autograd.grad(score, maps, retain_graph=True)
    alpha = gradient.mean((2, 3), keepdim=True)
    return torch.relu((alpha * maps).sum(1))[0].detach()


def grad_cam_plus_plus(maps, head, label):
    """Chattopadhay 2018, equations 5, 6, 10 and 19, for the score exp(S)."""
    shape = maps.shape
    flat = maps.detach().flatten().requires_grad_()
    score = torch.exp(head(flat.view(shape))[0, label])
    (first,) = torch.autograd.grad(score, flat, create_graph=True)
    second, third = torch.zeros_like(flat), torch.zeros_like(flat)
    for place in range(flat.numel()):
        (of_first,) = torch.autograd.grad(first[place], flat, create_graph=True)
        second[place] = of_first[place].detach()
        (of_second,) = torch.autograd.grad(of_first[place], flat, retain_graph=True)
        third[place] = of_second[place]
    first, second, third = (x.detach().view(shape) for x in (first, second, third))
    total = maps.detach().sum((2, 3), keepdim=True)
    denominator = 2 * second + total * third
    alpha = torch.where(denominator != 0, second / torch.where(denominator != 0, denominator, 1), 0)
    weights = (alpha * torch.relu(first)).sum((2, 3), keepdim=True)
    # The program leaves the factor exp(S) out.
    return torch.relu((weights * maps.detach()).sum(1))[0] / score.detach()


def main():
    folder = pathlib.Path(__file__).parent
    for name, build in {"pooled": pooled, "dense": dense}.items():
        torch.manual_seed(3)
        network, cut = build()
        network = network.double()
        image = torch.randn(1, 2, 8, 8, dtype=torch.float64)
        maps = network[:cut](image)
        tensors = {f"weights.{key}": value for key, value in network.state_dict().items()}
        tensors |= {"image": image, "maps": maps.detach()}
        for label in range(CLASSES):
            score = network[cut:](maps)[0, label]
            tensors[f"grad_cam.{label}"] = grad_cam(maps, score)
            tensors[f"grad_cam_plus_plus.{label}"] = grad_cam_plus_plus(maps, network[cut:], label)
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
