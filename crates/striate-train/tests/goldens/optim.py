"""Writes optim.json: what optimizers and clipping of PyTorch and timm make of two parameters in five steps with given gradients.

Muon has no such source: it is computed here by its definition, through singular values.

Run by hand with PyTorch 2.13 and timm: python optim.py > optim.json
"""

import json
import math

import timm.optim
import timm.utils
import torch

LRS = [0.1, 0.1, 0.05, 0.05, 0.01]


def case(kind, clip=None, shape=(2, 3), weight_decay=0.0, decay_1d=True, **keys):
    config = {"kind": kind, "weight_decay": weight_decay, "decay_1d": decay_1d, **keys}
    return {"optimizer": config, "clip": clip, "shape": list(shape)}


RMSPROP = {"alpha": 0.9, "eps": 1e-6}
LAMB = {"betas": [0.9, 0.99], "eps": 1e-6}
LARS = {"momentum": 0.9, "trust_coefficient": 0.1, "eps": 1e-8}
MUON = {"momentum": 0.6, "newton_schulz_steps": 5, "sgd_momentum": 0.85, "sgd_lr_scale": 0.5}
CASES = [
    case("sgd", momentum=0.0, nesterov=False),
    case("sgd", momentum=0.9, nesterov=False, weight_decay=0.01),
    case("sgd", momentum=0.9, nesterov=True, weight_decay=0.01, decay_1d=False),
    case("sgd", {"norm": 0.5}, momentum=0.9, nesterov=False),
    case("sgd", {"value": 0.3}, momentum=0.9, nesterov=False),
    case("sgd", {"adaptive": 0.4}, momentum=0.9, nesterov=False),
    case("sgd", {"adaptive": 0.4}, (3, 2, 1, 1), momentum=0.9, nesterov=False),
    case("adam", betas=[0.9, 0.999], eps=1e-8),
    case("adam", betas=[0.8, 0.95], eps=1e-6, weight_decay=0.05, decay_1d=False),
    case("adamw", betas=[0.9, 0.999], eps=1e-8, weight_decay=0.05),
    case("adamw", {"norm": 1.0}, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.05, decay_1d=False),
    case("rmsprop", momentum=0.0, centered=False, tensorflow=False, weight_decay=0.01, **RMSPROP),
    case("rmsprop", momentum=0.9, centered=True, tensorflow=False, weight_decay=0.01, decay_1d=False, **RMSPROP),
    case("rmsprop", momentum=0.0, centered=False, tensorflow=True, **RMSPROP),
    case("rmsprop", momentum=0.9, centered=True, tensorflow=True, weight_decay=0.01, **RMSPROP),
    case("lamb", always_adapt=False, weight_decay=0.05, **LAMB),
    case("lamb", {"norm": 1.0}, always_adapt=False, weight_decay=0.05, decay_1d=False, **LAMB),
    case("lamb", always_adapt=True, **LAMB),
    case("lars", nesterov=False, always_adapt=False, weight_decay=0.05, decay_1d=False, **LARS),
    case("lars", nesterov=True, always_adapt=True, **LARS),
    case("lion", betas=[0.9, 0.99]),
    case("lion", betas=[0.8, 0.95], weight_decay=0.5, decay_1d=False),
    case("muon", None, (2, 3, 1, 1), nesterov=True, renormalise=True, **MUON),
    case("muon", None, (3, 2, 1, 1), nesterov=False, renormalise=False, weight_decay=0.05, **MUON),
    case("muon", None, (2, 3), nesterov=True, renormalise=True, **MUON),
]

torch.manual_seed(0)
weight, bias = torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
weight_grads = [torch.randn(2, 3, dtype=torch.float64) for _ in LRS]
# The bias gets no gradient in the second step.
bias_grads = [None if step == 1 else torch.randn(3, dtype=torch.float64) for step in range(len(LRS))]


def flat(tensor):
    return None if tensor is None else tensor.double().flatten().tolist()


class Muon(torch.optim.Optimizer):
    """Of filters, after Keller Jordan's airbench94_muon: the singular values of the momentum go through a polynomial, again and again."""

    def __init__(self, params, lr, config):
        super().__init__(params, {"lr": lr, "weight_decay": config["weight_decay"]})
        self.config = config

    @torch.no_grad()
    def step(self):
        momentum = self.config["momentum"]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.mul_(momentum).add_(p.grad)
                grad = p.grad + momentum * buffer if self.config["nesterov"] else buffer
                if self.config["renormalise"]:
                    p.mul_(math.sqrt(len(p)) / p.norm())
                u, s, v = torch.linalg.svd(grad.reshape(len(p), -1).double(), full_matrices=False)
                s = s / (s.norm() + 1e-7)
                for _ in range(self.config["newton_schulz_steps"]):
                    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (u * s @ v).to(p.dtype).view_as(p))


def optimizer(param, config, weight_decay):
    """One for each parameter, so that timm's count the steps of each."""
    group, kind, lr = [{"params": [param], "weight_decay": weight_decay}], config["kind"], LRS[0]
    keys = {key: config[key] for key in ("momentum", "nesterov", "eps", "alpha", "centered", "always_adapt") if key in config}
    if "betas" in config:
        keys["betas"] = tuple(config["betas"])
    if kind == "sgd":
        return torch.optim.SGD(group, lr=lr, **keys)
    if kind == "adam":
        return torch.optim.Adam(group, lr=lr, **keys)
    if kind == "adamw":
        return torch.optim.AdamW(group, lr=lr, **keys)
    if kind == "rmsprop":
        return (timm.optim.RMSpropTF if config["tensorflow"] else torch.optim.RMSprop)(group, lr=lr, **keys)
    if kind == "lamb":
        return timm.optim.Lamb(group, lr=lr, max_grad_norm=None, **keys)
    if kind == "lars":
        return timm.optim.Lars(group, lr=lr, trust_coeff=config["trust_coefficient"], **keys)
    if kind == "lion":
        return timm.optim.Lion(group, lr=lr, **keys)
    if param.dim() == 4:
        return Muon(group, lr, config)
    return torch.optim.SGD(group, lr=lr, momentum=config["sgd_momentum"], nesterov=True)


def clip(params, how):
    params = [param for param in params if param.grad is not None]
    for kind, limit in (how or {}).items():
        if kind == "norm":
            torch.nn.utils.clip_grad_norm_(params, limit)
        elif kind == "value":
            torch.nn.utils.clip_grad_value_(params, limit)
        else:
            timm.utils.adaptive_clip_grad(params, limit)


def run(case, dtype):
    config = case["optimizer"]
    w, b = (tensor.to(dtype, copy=True) for tensor in (weight, bias))
    w, b = w.view(case["shape"]).requires_grad_(), b.requires_grad_()
    decay = config["weight_decay"]
    optimizers = [optimizer(w, config, decay), optimizer(b, config, decay if config["decay_1d"] else 0.0)]
    for lr, wg, bg in zip(LRS, weight_grads, bias_grads):
        w.grad, b.grad = wg.to(dtype, copy=True).view_as(w), None if bg is None else bg.to(dtype, copy=True)
        clip([w, b], case["clip"])
        for own in optimizers:
            of_filters = own.param_groups[0]["params"][0].dim() == 4
            scale = config["sgd_lr_scale"] if config["kind"] == "muon" and not of_filters else 1.0
            own.param_groups[0]["lr"] = lr * scale
            if own.param_groups[0]["params"][0].grad is not None:
                own.step()
    return {"weight": flat(w.detach()), "bias": flat(b.detach())}


golden = {
    "lrs": LRS,
    "weight": flat(weight),
    "bias": flat(bias),
    "weight_grads": [flat(grad) for grad in weight_grads],
    "bias_grads": [flat(grad) for grad in bias_grads],
    "cases": [{**case, "float64": run(case, torch.float64), "float32": run(case, torch.float32)} for case in CASES],
}
print(json.dumps(golden, indent=1))
