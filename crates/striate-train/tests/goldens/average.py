"""Writes average.json: what timm, torchvision's reference and torch make of the weights of a run.

Run by hand with PyTorch 2.13 and timm 1.0.31: python average.py > average.json
"""

import json
import warnings

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

STEPS_PER_EPOCH, EPOCHS, BATCH = 4, 3, 5


def fill(model, moment):
    """Gives a model the weights and buffers that a run has at a moment."""
    with torch.no_grad():
        for number, tensor in enumerate(model.state_dict().values()):
            if tensor.is_floating_point():
                places = torch.arange(tensor.numel(), dtype=torch.float64)
                # Above 0, as variances are.
                tensor.copy_((1.5 + torch.sin(0.7 * places + moment + number)).view_as(tensor))
            else:
                tensor.fill_(moment)
    return model


def state(model):
    return {name: tensor.double().flatten().tolist() for name, tensor in model.state_dict().items()}


class ExponentialMovingAverage(AveragedModel):
    """As in references/classification/utils.py of torchvision, which copies counters by rounding down."""

    def __init__(self, model, decay):
        super().__init__(model, None, lambda average, own, _: decay * average + (1 - decay) * own, use_buffers=True)


def ema(config, kind):
    """The averages after each step of a run, whose first step finds the weights of the moment 0."""
    model = fill(nn.BatchNorm2d(2).double(), 0)
    after = config.get("after_epochs", 0)
    if kind == "timm":
        average = ModelEmaV3(
            model,
            decay=config["decay"],
            min_decay=config.get("min_decay", 0.0),
            update_after_step=after * STEPS_PER_EPOCH,
            use_warmup=config["warmup"],
            warmup_gamma=config.get("warmup_gamma", 1.0),
            warmup_power=config.get("warmup_power", 2 / 3),
            exclude_buffers=config.get("buffers") == "copy",
        )
    else:
        # As in references/classification/train.py, for one process.
        alpha = min(1.0, (1.0 - config["decay"]) * BATCH * config["every"] / EPOCHS)
        average = ExponentialMovingAverage(model, decay=1.0 - alpha)
    states = []
    for step in range(EPOCHS * STEPS_PER_EPOCH):
        fill(model, step + 1)
        if kind == "timm":
            average.update(model, step=step + 1)
        elif step % STEPS_PER_EPOCH % config["every"] == 0:
            average.update_parameters(model)
            if step // STEPS_PER_EPOCH < after:
                average.n_averaged.fill_(0)
        averaged = state(average.module)
        # Counters are copied, and not averaged.
        averaged.pop("num_batches_tracked")
        states.append(averaged)
    return {"config": config, "states": states}


def swa():
    """The mean of the weights of the moments 0, 1 and 2 with the statistics of ten images in batches of four."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2, momentum=0.3), nn.Flatten(), nn.Linear(18, 2))
    names = {"0": "conv", "1": "bn", "3": "fc"}
    average = AveragedModel(model)
    for moment in range(3):
        average.update_parameters(fill(model, moment))
    images = (torch.arange(90) * 37 % 251).view(10, 1, 3, 3) / 255
    update_bn(((images - 0.5) / 0.25).split(4), average)
    return {names[name[0]] + name[1:]: values for name, values in state(average.module).items()}


def swa_lrs(anneal, anneal_epochs):
    """The learning rates of six epochs in which 0.1 comes to 0.02."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = SWALR(optimizer, 0.02, anneal_epochs, {"cosine": "cos"}.get(anneal, anneal))
    lrs = []
    for _ in range(6):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return {"anneal": anneal, "anneal_epochs": anneal_epochs, "lrs": lrs}


warnings.filterwarnings("ignore")
TIMM = [
    {"decay": 0.9, "warmup": False},
    {"decay": 0.9, "warmup": False, "buffers": "copy"},
    {"decay": 0.6, "warmup": True, "warmup_gamma": 2.0, "warmup_power": 0.75, "min_decay": 0.3, "after_epochs": 1},
]
TORCHVISION = [
    {"decay": 0.98, "warmup": False, "every": 2, "scaled": True, "after_epochs": 1},
    {"decay": 0.5, "warmup": False, "every": 3, "scaled": True},
]
goldens = {
    "ema": [ema(config, "timm") for config in TIMM] + [ema(config, "torchvision") for config in TORCHVISION],
    "swa": swa(),
    "swa_lrs": [swa_lrs("cosine", 4), swa_lrs("linear", 4), swa_lrs("linear", 0)],
}
print(json.dumps(goldens))
