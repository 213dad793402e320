"""What single convolutions of oneDNN take in float32, bfloat16 and int8, with two threads: the best of several runs.

python int8.py

Each is followed by a ReLU and reads a packed weight; int8 reads and writes uint8. GFLOP/s count two operations a multiplication.
"""

import time

import torch

THREADS = 2
SECONDS = 0.4
# Input channels, output channels, height and width, kernel size, stride.
SHAPES = [
    (64, 256, 56, 1, 1),
    (256, 64, 56, 1, 1),
    (512, 128, 28, 1, 1),
    (1024, 256, 14, 1, 1),
    (512, 2048, 7, 1, 1),
    (128, 128, 28, 3, 1),
    (64, 64, 56, 3, 1),
    (512, 512, 7, 3, 1),
    (3, 64, 224, 7, 2),
]


def best(run):
    run()
    start, least, runs = time.perf_counter(), float("inf"), 0
    while runs < 5 or time.perf_counter() - start < SECONDS:
        begun = time.perf_counter()
        run()
        least, runs = min(least, time.perf_counter() - begun), runs + 1
    return 1e3 * least


def floating(kind, x, weight, bias, stride, padding):
    x, bias = x.to(kind), bias.to(kind)
    weight = weight.to(kind).contiguous(memory_format=torch.channels_last)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, list(x.shape))
    conv = torch.ops.mkldnn._convolution_pointwise
    return best(lambda: conv(x, packed, bias, padding, stride, [1, 1], 1, "relu", [], ""))


def quantized(size, weight_size, bias, stride, padding):
    x = torch.randint(0, 255, size, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    weight = torch.randint(-127, 127, weight_size, dtype=torch.int8)
    scales, zeros = torch.rand(weight_size[0]) * 0.01 + 0.001, torch.zeros(weight_size[0], dtype=torch.int64)
    packed = torch.ops.onednn.qconv_prepack(weight, scales, 0.02, 0, stride, padding, [1, 1], 1, size)
    conv = torch.ops.onednn.qconv2d_pointwise
    after = [0.05, 0, torch.uint8, "relu", [], ""]
    return best(lambda: conv(x, 0.02, 0, packed, scales, zeros, bias, stride, padding, [1, 1], 1, *after))


torch.set_num_threads(THREADS)
torch.set_grad_enabled(False)
for batch in (1, 16):
    for channels, out, side, kernel, step in SHAPES:
        stride, padding = [step, step], [kernel // 2, kernel // 2]
        x = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
        weight, bias = torch.randn(out, channels, kernel, kernel) * 0.05, torch.randn(out)
        times = {str(kind)[6:]: floating(kind, x, weight, bias, stride, padding) for kind in (torch.float32, torch.bfloat16)}
        times["int8"] = quantized(list(x.shape), list(weight.shape), bias, stride, padding)
        work = 2e-6 * batch * channels * out * kernel**2 * (side // step) ** 2
        text = ", ".join(f"{kind} {ms:.2f} ms {work / ms:.0f} GFLOP/s" for kind, ms in times.items())
        print(f"{channels}x{side}x{side} to {out}, {kernel}x{kernel}/{step}, batch {batch}: {text}", flush=True)
