"""Writes layers.safetensors beside this file: what PyTorch computes for every layer, forward and backward, in float64.

Run it with torch 2.13.0, torchvision 0.28.0 and safetensors. The names of the cases are those in ../it/cases.rs and ../it/init.rs.
Tensors of a case are named
    CASE/given/...      input0, input1, ..., targets, parameters and buffers by name, and upstream (the output's gradient);
    CASE/expected/...   output, grad.NAME of each input and parameter, after.NAME of each buffer after the forward pass;
    init/CASE/...       weight and bias as PyTorch initialises them in float32 after torch.manual_seed(init/seed).
"""

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import StochasticDepth

INIT_SEED = 20240229


@dataclass
class Case:
    make: Callable[[], nn.Module]
    shapes: list[tuple[int, ...]]
    train: bool = False
    classes: int | None = None  # of a loss: random targets are its second argument


class Formula(nn.Module):
    """A function without parameters."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class Subsampling(nn.Module):
    """One coefficient for all inputs of a window: a depthwise convolution whose weights are equal."""

    def __init__(self, channels, kernel_size):
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        k, channels = self.kernel_size, len(self.weight)
        weight = self.weight.view(channels, 1, 1, 1).expand(channels, 1, k, k)
        return F.conv2d(x, weight, self.bias, stride=k, groups=channels)


class LeNetC3(nn.Module):
    """Table I of LeCun 1998, one convolution for each connection."""

    TABLE_I = "012 123 234 345 450 501 0123 1234 2345 3450 4501 5012 0134 1245 0235 012345".split()

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(sum(map(len, self.TABLE_I)), 5, 5))
        self.bias = nn.Parameter(torch.randn(len(self.TABLE_I)))

    def forward(self, x):
        kernels = iter(self.weight)
        sums = [
            sum(F.conv2d(x[:, [int(channel)]], next(kernels)[None, None]) for channel in channels) + bias
            for channels, bias in zip(self.TABLE_I, self.bias)
        ]
        return torch.cat(sums, 1)


class Rbf(nn.Module):
    def __init__(self, classes, features):
        super().__init__()
        self.register_buffer("weight", torch.randn(classes, features).sign())

    def forward(self, x):
        return -torch.cdist(x, self.weight, compute_mode="donot_use_mm_for_euclid_dist") ** 2


def pad_shortcut(x, out_channels, stride):
    """A strided 1x1 convolution that hands each input channel on, and whose further channels see nothing."""
    return F.conv2d(x, torch.eye(out_channels, x.shape[1])[:, :, None, None], stride=stride)


def batch_norm(channels=3, **options):
    """Parameters and statistics away from 0 and 1, where mistakes would not show."""
    norm = nn.BatchNorm2d(channels, **options)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return norm


def after_a_batch(channels=3, **options):
    """A batch norm that has counted one batch already."""
    norm = batch_norm(channels, **options)
    norm(torch.randn(2, channels, 3, 3))
    return norm


def rbf_loss(logits, targets, j=1.5):
    """Equation 9 of LeCun 1998, with y = -logits."""
    y = -logits
    of_target = (y * F.one_hot(targets, y.shape[1])).sum(1)
    return (of_target + torch.log(torch.exp(torch.tensor(-j)) + torch.exp(-y).sum(1))).mean()


IMAGE = (2, 3, 4, 5)
CHANNELS = (2, 6, 3, 4)

CASES = {
    "conv2d": Case(lambda: nn.Conv2d(3, 4, 3), [IMAGE]),
    "conv2d_stride_padding": Case(lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), [IMAGE]),
    "conv2d_rectangular": Case(lambda: nn.Conv2d(3, 4, (2, 3), stride=(1, 2), padding=(2, 1)), [IMAGE]),
    "conv2d_dilation": Case(lambda: nn.Conv2d(3, 4, 3, padding=1, dilation=(1, 2)), [IMAGE]),
    "conv2d_groups": Case(lambda: nn.Conv2d(6, 4, 3, groups=2), [CHANNELS]),
    "conv2d_depthwise": Case(lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6), [CHANNELS]),
    "conv2d_no_bias": Case(lambda: nn.Conv2d(3, 4, 3, bias=False), [IMAGE]),
    "conv2d_same_even": Case(lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), [IMAGE]),
    "conv2d_same_dilation": Case(lambda: nn.Conv2d(3, 4, (3, 2), padding="same", dilation=(2, 3)), [IMAGE]),
    "conv2d_1x1": Case(lambda: nn.Conv2d(3, 4, 1), [IMAGE]),
    "linear": Case(lambda: nn.Linear(7, 5), [(3, 7)]),
    "linear_no_bias": Case(lambda: nn.Linear(7, 5, bias=False), [(3, 7)]),
    "batch_norm2d_train": Case(batch_norm, [IMAGE], train=True),
    "batch_norm2d_eval": Case(batch_norm, [IMAGE]),
    "batch_norm2d_eps_train": Case(lambda: batch_norm(eps=1e-3), [IMAGE], train=True),
    "batch_norm2d_eps_eval": Case(lambda: batch_norm(eps=1e-3), [IMAGE]),
    "batch_norm2d_momentum": Case(lambda: batch_norm(momentum=0.3), [IMAGE], train=True),
    "batch_norm2d_cumulative_1": Case(lambda: batch_norm(momentum=None), [IMAGE], train=True),
    "batch_norm2d_cumulative_2": Case(lambda: after_a_batch(momentum=None), [IMAGE], train=True),
    "batch_norm2d_cumulative_eval": Case(lambda: after_a_batch(momentum=None), [IMAGE]),
    "batch_norm2d_no_affine_train": Case(lambda: batch_norm(affine=False), [IMAGE], train=True),
    "batch_norm2d_no_affine_eval": Case(lambda: batch_norm(affine=False), [IMAGE]),
    "local_response_norm_odd": Case(lambda: nn.LocalResponseNorm(3, alpha=0.5, beta=0.6, k=1.5), [CHANNELS]),
    "local_response_norm_even": Case(lambda: nn.LocalResponseNorm(4, alpha=0.5, beta=0.6, k=1.5), [CHANNELS]),
    "local_response_norm_defaults": Case(lambda: nn.LocalResponseNorm(5), [CHANNELS]),
    # The paper's alpha is 1e-4 for the sum of squares; PyTorch's alpha is divided by the size.
    "local_response_norm_alexnet": Case(lambda: nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2), [CHANNELS]),
    "max_pool2d": Case(lambda: nn.MaxPool2d(2), [IMAGE]),
    "max_pool2d_overlapping": Case(lambda: nn.MaxPool2d(3, stride=2), [(2, 2, 5, 7)]),
    "max_pool2d_padding": Case(lambda: nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)), [IMAGE]),
    "max_pool2d_dilation": Case(lambda: nn.MaxPool2d(2, stride=1, dilation=(2, 3)), [IMAGE]),
    "max_pool2d_ceil": Case(lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True), [(2, 2, 6, 6)]),
    "avg_pool2d": Case(lambda: nn.AvgPool2d(2), [IMAGE]),
    "avg_pool2d_overlapping": Case(lambda: nn.AvgPool2d(3, stride=2), [(2, 2, 5, 7)]),
    "avg_pool2d_padding": Case(lambda: nn.AvgPool2d((3, 2), stride=(2, 1), padding=(1, 0)), [IMAGE]),
    "avg_pool2d_without_pad": Case(lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), [IMAGE]),
    "avg_pool2d_ceil": Case(lambda: nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), [(2, 2, 6, 6)]),
    "adaptive_avg_pool2d_global": Case(lambda: nn.AdaptiveAvgPool2d(1), [(2, 2, 5, 7)]),
    "adaptive_avg_pool2d": Case(lambda: nn.AdaptiveAvgPool2d((2, 3)), [(2, 2, 5, 7)]),
    "adaptive_max_pool2d_global": Case(lambda: nn.AdaptiveMaxPool2d(1), [(2, 2, 5, 7)]),
    "adaptive_max_pool2d": Case(lambda: nn.AdaptiveMaxPool2d((2, 3)), [(2, 2, 5, 7)]),
    "relu": Case(nn.ReLU, [IMAGE]),
    "tanh": Case(nn.Tanh, [IMAGE]),
    "scaled_tanh": Case(lambda: Formula(lambda x: 1.7159 * torch.tanh(2 * x / 3)), [IMAGE]),
    "sigmoid": Case(nn.Sigmoid, [IMAGE]),
    "softmax_vector": Case(lambda: nn.Softmax(dim=1), [(3, 7)]),
    "softmax_image": Case(nn.Softmax2d, [IMAGE]),
    "dropout_eval": Case(nn.Dropout, [IMAGE]),
    "dropout_of_nothing": Case(lambda: nn.Dropout(0.0), [IMAGE], train=True),
    "stochastic_depth_eval": Case(lambda: StochasticDepth(0.5, "row"), [IMAGE]),
    "stochastic_depth_of_nothing": Case(lambda: StochasticDepth(0.0, "row"), [IMAGE], train=True),
    "flatten": Case(nn.Flatten, [IMAGE]),
    "add_2": Case(lambda: Formula(torch.add), [IMAGE] * 2),
    "add_3": Case(lambda: Formula(lambda a, b, c: torch.stack([a, b, c]).sum(0)), [IMAGE] * 3),
    "concat": Case(lambda: Formula(lambda *inputs: torch.cat(inputs, 1)), [IMAGE, (2, 1, 4, 5), (2, 2, 4, 5)]),
    "pad_shortcut": Case(lambda: Formula(lambda x: pad_shortcut(x, 8, (2, 2))), [IMAGE]),
    "pad_shortcut_rectangular": Case(lambda: Formula(lambda x: pad_shortcut(x, 8, (1, 3))), [IMAGE]),
    "subsampling2d": Case(lambda: Subsampling(3, 2), [(2, 3, 4, 6)]),
    "sparse_conv2d_lenet_c3": Case(LeNetC3, [(2, 6, 5, 6)]),
    "rbf_output": Case(lambda: Rbf(4, 84), [(2, 84)]),
    "cross_entropy": Case(nn.CrossEntropyLoss, [(4, 6)], classes=6),
    "cross_entropy_smoothed": Case(lambda: nn.CrossEntropyLoss(label_smoothing=0.1), [(4, 6)], classes=6),
    "rbf_loss": Case(lambda: Formula(rbf_loss), [(4, 6)], classes=6),
}


def with_weight(fill, *shape):
    """A weight that `fill` initialises, and no bias."""

    def make():
        layer = nn.ParameterDict({"weight": torch.empty(*shape)})
        fill(layer["weight"])
        return layer

    return make


INITS = {
    "conv2d": lambda: nn.Conv2d(3, 8, (3, 5)),
    "conv2d_groups": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "linear": lambda: nn.Linear(21, 10),
    "trunc_normal": with_weight(lambda w: nn.init.trunc_normal_(w, std=0.1, a=-0.15, b=0.15), 10, 21),
    "trunc_normal_narrow": with_weight(lambda w: nn.init.trunc_normal_(w, std=1, a=-0.3, b=0.3), 10, 21),
    "trunc_normal_googlenet": with_weight(lambda w: nn.init.trunc_normal_(w, std=0.01, a=-2, b=2), 10, 21),
    "kaiming_normal_fan_out": with_weight(
        lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), 8, 3, 3, 5
    ),
    "xavier_uniform": with_weight(lambda w: nn.init.xavier_uniform_(w, gain=nn.init.calculate_gain("tanh")), 8, 3, 3, 5),
    "xavier_normal": with_weight(nn.init.xavier_normal_, 8, 3, 3, 5),
}


def run(name, case):
    """What the case is given and what PyTorch makes of it."""
    torch.manual_seed(zlib.crc32(name.encode()))
    module = case.make().train(case.train)
    inputs = [torch.randn(shape, requires_grad=True) for shape in case.shapes]
    given = {f"input{i}": value for i, value in enumerate(inputs)}
    leaves = {**given, **dict(module.named_parameters())}
    given |= {key: value.clone() for key, value in module.state_dict().items()}
    arguments = list(inputs)
    if case.classes is not None:
        given["targets"] = torch.randint(case.classes, case.shapes[0][:1])
        arguments.append(given["targets"])
    output = module(*arguments)
    given["upstream"] = torch.randn_like(output)
    output.backward(given["upstream"])
    expected = {"output": output}
    expected |= {f"grad.{key}": leaf.grad for key, leaf in leaves.items()}
    expected |= {f"after.{key}": buffer for key, buffer in module.named_buffers()}
    sections = {"given": given, "expected": expected}
    return {f"{name}/{section}/{key}": value for section, part in sections.items() for key, value in part.items()}


def main():
    # PyTorch warns that an even kernel with padding="same" copies its input.
    warnings.filterwarnings("ignore", message="Using padding='same'")
    torch.set_num_threads(1)
    tensors = {"init/seed": torch.tensor(INIT_SEED)}
    torch.set_default_dtype(torch.float64)
    for name, case in CASES.items():
        tensors |= run(name, case)
    torch.set_default_dtype(torch.float32)
    for name, make in INITS.items():
        torch.manual_seed(INIT_SEED)
        tensors |= {f"init/{name}/{key}": value for key, value in make().state_dict().items()}
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("layers.safetensors"), {"torch": torch.__version__})


if __name__ == "__main__":
    main()
