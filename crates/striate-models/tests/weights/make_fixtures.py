"""Writes the files of torch.save that the tests of reading weights take: made with PyTorch 2.13.

The files of hostile objects would run a command if they were unpickled.
"""

import argparse
import os
from collections import Counter, deque
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy
import torch


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-was-run",)


def tensors():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
    return {
        "float": base.clone(),
        "double": base[:2].double(),
        "half": base[0].half(),
        "bfloat16": base[1].bfloat16(),
        "transposed": base.t(),
        "strided": base[::2, 1::2],
        "shared.row": base[2],
        "int64": torch.tensor([1, -2, 3]),
        "int32": torch.tensor([4, -5], dtype=torch.int32),
        "int16": torch.tensor([6, -7], dtype=torch.int16),
        "uint8": torch.tensor([8, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def training():
    """What a training script saves: only the weights are read."""
    weights = {"w": torch.ones(2)}
    args = argparse.Namespace(lr=numpy.float64(0.1), device=torch.device("cpu"), milestones={30, 60}, size=torch.Size([2, 3]))
    return {"state_dict": weights, "args": args, "best": numpy.float32(91.5), "rng": torch.get_rng_state()}


def save(name, value, checksums=True, **options):
    torch.serialization.set_crc32_options(checksums)
    torch.save(value, Path(__file__).with_name(name), **options)


def main():
    legacy = {"_use_new_zipfile_serialization": False}
    save("zip.pth", tensors())
    save("legacy.pth", tensors(), **legacy)
    nested = {"epoch": 3, "model": tensors(), "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}
    save("model.pth", nested)
    parallel = {"module." + name: tensor for name, tensor in tensors().items()}
    save("state_dict.th", {"state_dict": parallel, "best_prec1": 91.7}, **legacy)
    save("protocol4.pt", tensors(), pickle_protocol=4, **legacy)
    save("module.pt", torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)))
    save("complex.pth", {"weight": torch.zeros(2, dtype=torch.complex64)})
    save("uint16.pth", {"weight": torch.zeros(2, dtype=torch.uint16)})
    save("expanded.pth", {"weight": torch.zeros(1).expand(1 << 30)})
    save("views.pth", {"weight": torch.ones(1).expand(5000)})
    save("training.pth", training())
    save("tiny.pth", {"w": torch.ones(2)})
    save("tiny-legacy.pth", {"w": torch.ones(2)}, **legacy)
    save("empty.pth", {})
    # With as many letters, an entry of the archive's directory has as many bytes as the zip64 records behind it.
    save("n" * 21 + ".pth", {"w": torch.ones(2)})
    layer = {"conv.weight": torch.ones(2), "conv.bias": torch.zeros(1)}
    average = {name: tensor / 2 for name, tensor in layer.items()}
    state = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    save("ema.pth", {"state_dict_ema": average, "state_dict": layer, "optimizer": state, "arch": "resnet18"})
    save("two.pth", {"generator": layer, "discriminator": {"net": average}})
    save("list.pth", [layer, {"state": state}])
    save("tuple.pth", (layer, average))
    contrast = {f"module.{part}.conv.weight": torch.full((2,), value) for part, value in [("encoder_q", 1.0), ("encoder_k", 2.0)]}
    beside = [Counter([30, 60]), deque([1.0], 3), 1 + 2j, range(3), slice(1, 2), Decimal("0.1"), date(2020, 1, 1), torch.strided]
    save("deep.pth", {"runs": {"a": {"b": {"c": {"d": {0: contrast}}}}}, "beside": beside})
    save("no-checksums.pth", {"w": torch.ones(2)}, checksums=False)
    scripted = torch.jit.script(torch.nn.ReLU())
    torch.jit.save(scripted, Path(__file__).with_name("scripted.pt"))
    save("hostile.pth", {"weight": torch.ones(2), "extra": Hostile()})
    save("hostile-legacy.pth", {"state_dict": {"weight": Hostile()}}, **legacy)
    save("hostile-root.pth", Hostile())


if __name__ == "__main__":
    main()
