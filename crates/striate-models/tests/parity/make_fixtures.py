"""Writes the fixtures of the parity test: what torchvision computes, for Striate to compute too.

    python make_fixtures.py                  # small images, into the folder `fixtures` beside this file
    python make_fixtures.py --full FOLDER    # every model at its native size, for STRIATE_FULL_PARITY=FOLDER

Made with torch 2.13.0 and torchvision 0.28.0. A fixture holds no weights: every weight and every input is a function of its
name (`values`), which `it/parity.rs` has too. So a fixture is small whatever the network, and names that differ show.
"""

import argparse
import json
import math
import pathlib
from functools import partial

import numpy as np
import torch
import torchvision.models as tv
from safetensors.torch import save_file
from torch import nn
from torchvision.models import inception
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import cfgs, make_layers

BATCH = 2
TARGETS = [1, 7]
CLASSES = 10
HIDDEN = 32
PERIOD = 65_521  # a prime, so that rows of a weight don't repeat
MASK = (1 << 64) - 1


def fnv1a(text):
    """The 64-bit FNV-1a hash of a name."""
    state = 0xCBF29CE484222325
    for byte in text.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    return state


def values(name, shape):
    """Float64 values in [-1, 1): splitmix64 of the name's hash and the index, repeated after PERIOD values."""
    count = math.prod(shape)
    index = np.arange(1, min(count, PERIOD) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + index * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(11)).astype(np.float64) / 2.0**53
    return torch.from_numpy(np.resize(2 * unit - 1, count).reshape(shape))


def weight(name, tensor):
    """The value of a parameter: kernels scaled to keep the variance through a ReLU, norms near what training makes them."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(tensor)
    x = values(name, tensor.shape)
    if tensor.dim() > 1:
        return x * math.sqrt(6 / tensor[0].numel())
    if name.endswith(("running_var", ".weight")):
        return 1 + 0.5 * x
    return 0.1 * x


def narrow_conv(in_channels, out_channels, **options):
    """A convolution of an Inception network that has an eighth of the channels."""
    return BasicConv2d(in_channels if in_channels == 3 else in_channels // 8, out_channels // 8, **options)


def googlenet_tiny():
    blocks = [partial(block, conv_block=narrow_conv) for block in (Inception, InceptionAux)]
    net = tv.GoogLeNet(CLASSES, init_weights=False, blocks=[narrow_conv, *blocks])
    for aux in (net.aux1, net.aux2):
        aux.fc1, aux.fc2 = nn.Linear(256, 128), nn.Linear(128, CLASSES)
    net.fc = nn.Linear(128, CLASSES)
    return net


def inception_v3_tiny():
    blocks = [getattr(inception, f"Inception{kind}") for kind in ("A", "B", "C", "D", "E", "Aux")]
    blocks = [partial(block, conv_block=narrow_conv) for block in blocks]
    net = tv.Inception3(CLASSES, init_weights=False, inception_blocks=[narrow_conv, *blocks])
    net.AuxLogits.fc, net.fc = nn.Linear(96, CLASSES), nn.Linear(256, CLASSES)
    return net


def small_head(net, features, hidden):
    """Fewer features in the linear layers of AlexNet or VGG."""
    sizes = iter([(features, hidden), (hidden, hidden), (hidden, CLASSES)])
    for index, layer in enumerate(net.classifier):
        if isinstance(layer, nn.Linear):
            net.classifier[index] = nn.Linear(*next(sizes))
    return net


def narrow_vgg(column, batch_norm):
    """A VGG with a quarter of the filters."""
    layers = [layer if layer == "M" else layer // 4 for layer in cfgs[column]]
    return small_head(tv.VGG(make_layers(layers, batch_norm), init_weights=False), 128 * 7 * 7, HIDDEN)


class PaddedBlock(nn.Module):
    """A block of akamaster's CIFAR ResNets: the zeros of its shortcut are half before the channels and half behind."""

    def __init__(self, in_planes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.changes = stride != 1 or in_planes != planes

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.changes:
            quarter = y.shape[1] // 4
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return (y + x).relu()


class PaddedResNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(PaddedBlock(width, width, 1))
        self.layer2 = nn.Sequential(PaddedBlock(width, 2 * width, 2))
        self.layer3 = nn.Sequential(PaddedBlock(2 * width, 4 * width, 2))
        self.fc = nn.Linear(4 * width, CLASSES)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.fc(x.mean((2, 3)))


def small_models():
    """Fixture and variant, image size, further options, network."""
    yield "alexnet", 64, {"hidden": HIDDEN}, lambda: small_head(tv.alexnet(), 256 * 6 * 6, HIDDEN)
    vgg = {"hidden": HIDDEN, "width": 16}
    yield "vgg11", 64, vgg, lambda: narrow_vgg("A", False)
    yield "vgg16-bn", 64, vgg, lambda: narrow_vgg("D", True)
    shallow = [2, 1, 1, 1]
    resnets = {"resnet18": (BasicBlock, {}), "resnet50": (Bottleneck, {})}
    resnets["resnext50-32x4d"] = Bottleneck, {"groups": 32, "width_per_group": 4}
    for name, (block, options) in resnets.items():
        yield name, 64, {"depths": shallow}, partial(tv.ResNet, block, shallow, CLASSES, **options)
    yield "resnet-tiny", 32, {"zero_channels": "around"}, partial(PaddedResNet, 8)
    yield "googlenet-tiny", 64, {}, googlenet_tiny
    yield "inception-v3-tiny", 299, {"aux_heads": True}, inception_v3_tiny


FULL = ["alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11-bn", "vgg13-bn", "vgg16-bn", "vgg19-bn"]
FULL += ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
FULL += ["resnext50-32x4d", "resnext101-32x8d", "wide-resnet50-2", "wide-resnet101-2"]


def full_models():
    for name in FULL:
        yield name, 224, {}, getattr(tv, name.replace("-", "_"))
    yield "googlenet", 224, {}, partial(tv.GoogLeNet, init_weights=False)
    yield "inception-v3", 299, {}, partial(tv.Inception3, init_weights=False)


def set_weights(net):
    for name, tensor in net.state_dict().items():
        tensor.copy_(weight(name, tensor))
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0


def outputs(result):
    """By name, whatever torchvision calls and wherever it puts them."""
    if isinstance(result, torch.Tensor):
        return {"logits": result}
    named = result._asdict()
    names = {"logits": "logits", "aux_logits": "aux1", "aux_logits1": "aux1", "aux_logits2": "aux2"}
    return {names[name]: value for name, value in named.items()}


def measure(tensors):
    """For each tensor its norm and its product with values of its name, which tells its order."""
    measured = [[t.norm().item(), (t.double() * values("probe." + name, t.shape)).sum().item()] for name, t in tensors]
    return torch.tensor(measured, dtype=torch.float64)


def evaluate(net, size):
    images = values("input", (BATCH, 3, size, size)).to(next(net.parameters()).dtype)
    with torch.no_grad():
        return net.eval()(images)


def train(net, size):
    """The outputs, gradients and running statistics of a step of training."""
    trained = outputs(net.train()(values("input", (BATCH, 3, size, size))))
    loss = sum(nn.functional.cross_entropy(value, torch.tensor(TARGETS)) for value in trained.values())
    loss.backward()
    result = {f"train.{name}": value.detach() for name, value in trained.items()}
    result["gradients"] = measure((name, p.grad) for name, p in sorted(net.named_parameters()))
    statistics = [(name, b) for name, b in sorted(net.named_buffers()) if "running" in name]
    return result | ({"statistics": measure(statistics)} if statistics else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=pathlib.Path)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    folder = arguments.full or pathlib.Path(__file__).parent / "fixtures"
    folder.mkdir(exist_ok=True)
    models = full_models() if arguments.full else small_models()
    for name, size, options, build in models:
        if arguments.only and name not in arguments.only:
            continue
        net = build()
        set_weights(net)
        tensors = {"eval32.logits": evaluate(net, size)}
        set_weights(net.double())
        tensors |= {"eval.logits": evaluate(net, size), **train(net, size)}
        classes = tensors["eval.logits"].shape[1]
        options = {"classes": classes, "input": [3, size, size], **options}
        names = sorted(name for name in net.state_dict())
        metadata = {"variant": name, "options": json.dumps(options), "names": json.dumps(names)}
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors", metadata)
        print(name, {key: value.abs().max().item() for key, value in tensors.items() if "logits" in key})


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
