"""Writes optim.json: what torch.optim's SGD and AdamW make of two parameters in five steps with given gradients.

Run by hand with PyTorch 2.13: python optim.py > optim.json
"""

import json

import torch

LRS = [0.1, 0.1, 0.05, 0.05, 0.01]
CASES = [
    ({"kind": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "decay_1d": True}, None),
    ({"kind": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.01, "decay_1d": True}, None),
    ({"kind": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "decay_1d": False}, None),
    ({"kind": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "decay_1d": True}, 0.5),
    ({"kind": "adamw", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.05, "decay_1d": True}, None),
    ({"kind": "adamw", "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.05, "decay_1d": False}, 1.0),
]

torch.manual_seed(0)
weight, bias = torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
weight_grads = [torch.randn(2, 3, dtype=torch.float64) for _ in LRS]
# The bias gets no gradient in the second step.
bias_grads = [None if step == 1 else torch.randn(3, dtype=torch.float64) for step in range(len(LRS))]


def flat(tensor):
    return None if tensor is None else tensor.double().flatten().tolist()


def run(config, clip_norm, dtype):
    w, b = (tensor.to(dtype, copy=True).requires_grad_() for tensor in (weight, bias))
    decay = config["weight_decay"]
    groups = [{"params": [w], "weight_decay": decay}, {"params": [b], "weight_decay": decay if config["decay_1d"] else 0.0}]
    if config["kind"] == "sgd":
        optimizer = torch.optim.SGD(groups, lr=LRS[0], momentum=config["momentum"], nesterov=config["nesterov"])
    else:
        optimizer = torch.optim.AdamW(groups, lr=LRS[0], betas=tuple(config["betas"]), eps=config["eps"])
    for lr, wg, bg in zip(LRS, weight_grads, bias_grads):
        w.grad, b.grad = wg.to(dtype, copy=True), None if bg is None else bg.to(dtype, copy=True)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([w, b], clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    return {"weight": flat(w.detach()), "bias": flat(b.detach())}


golden = {
    "lrs": LRS,
    "weight": flat(weight),
    "bias": flat(bias),
    "weight_grads": [flat(grad) for grad in weight_grads],
    "bias_grads": [flat(grad) for grad in bias_grads],
    "cases": [
        {
            "optimizer": config,
            "clip_norm": clip_norm,
            "float64": run(config, clip_norm, torch.float64),
            "float32": run(config, clip_norm, torch.float32),
        }
        for config, clip_norm in CASES
    ],
}
print(json.dumps(golden, indent=1))
