"""PyTorch on a GPU, as a peer of `striate-bench gpu`: eager, in a CUDA graph, or by torch.compile.

It needs torch and nothing else, so that it runs with the Python of any machine. On standard input it reads requests, each a line of
JSON (see crates/striate-bench/src/turns.rs): it gets ready for the case and answers `{"ready": ...}` or `{"error": REASON}`. Then to
`run N` it answers with the milliseconds of one of N runs. Another request replaces the case.

Weights, images, labels and logits are those of the file that the request names. A request whose side is `warm` only compiles, so that
the cache on disk has the code when `compile` asks for it; it draws weights and images itself.
"""

import gc
import json
import os
import sys
import time
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

LR = 1e-6
# Before a graph is recorded, and before anything is measured.
WARM_UP = 4


class Refusal(Exception):
    """A reason in one line."""


# The networks, with torchvision's names for their layers.


def lenet5():
    return nn.Sequential(OrderedDict(
        c1=nn.Conv2d(1, 6, 5), c1_act=nn.ReLU(), s2=nn.MaxPool2d(2),
        c3=nn.Conv2d(6, 16, 5), c3_act=nn.ReLU(), s4=nn.MaxPool2d(2), flatten=nn.Flatten(),
        c5=nn.Linear(400, 120), c5_act=nn.ReLU(), f6=nn.Linear(120, 84), f6_act=nn.ReLU(), output=nn.Linear(84, 10),
    ))


def conv(inside, outside, kernel, stride=1, padding=0):
    return nn.Conv2d(inside, outside, kernel, stride, padding, bias=False)


class Block(nn.Module):
    """Of a ResNet: two 3x3 convolutions, or with `narrow` channels a bottleneck. A CIFAR ResNet's shortcut pads with zeros."""

    def __init__(self, inside, outside, stride, narrow=None, zeros=False):
        super().__init__()
        self.zeros = stride > 1 and zeros
        self.relu = nn.ReLU(inplace=True)
        if narrow:
            self.conv1, self.bn1 = conv(inside, narrow, 1), nn.BatchNorm2d(narrow)
            self.conv2, self.bn2 = conv(narrow, narrow, 3, stride, 1), nn.BatchNorm2d(narrow)
            self.conv3, self.bn3 = conv(narrow, outside, 1), nn.BatchNorm2d(outside)
        else:
            self.conv1, self.bn1 = conv(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside)
            self.conv2, self.bn2 = conv(outside, outside, 3, 1, 1), nn.BatchNorm2d(outside)
        self.bottleneck = bool(narrow)
        if (stride > 1 or inside != outside) and not zeros:
            self.downsample = nn.Sequential(conv(inside, outside, 1, stride), nn.BatchNorm2d(outside))
        else:
            self.downsample = None

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.zeros:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return self.relu(y + x)


def stages(widths, depths, bottleneck=False, zeros=False):
    inside, layers = (64 if not zeros else widths[0]), OrderedDict()
    for index, (width, depth) in enumerate(zip(widths, depths)):
        outside, blocks = width * (4 if bottleneck else 1), []
        for block in range(depth):
            stride = 2 if index and not block else 1
            blocks.append(Block(inside, outside, stride, width if bottleneck else None, zeros))
            inside = outside
        layers[f"layer{index + 1}"] = nn.Sequential(*blocks)
    return layers, inside


def resnet(depths, bottleneck):
    layers, width = stages([64, 128, 256, 512], depths, bottleneck)
    return nn.Sequential(OrderedDict(
        conv1=conv(3, 64, 7, 2, 3), bn1=nn.BatchNorm2d(64), relu=nn.ReLU(inplace=True), maxpool=nn.MaxPool2d(3, 2, 1),
        **layers, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(width, 1000),
    ))


def cifar_resnet20():
    layers, width = stages([16, 32, 64], [3, 3, 3], zeros=True)
    return nn.Sequential(OrderedDict(
        conv1=conv(3, 16, 3, 1, 1), bn1=nn.BatchNorm2d(16), relu=nn.ReLU(inplace=True),
        **layers, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(width, 10),
    ))


def vgg16():
    features, inside = [], 3
    for width, count in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(count):
            features += [nn.Conv2d(inside, width, 3, 1, 1), nn.ReLU(inplace=True)]
            inside = width
        features.append(nn.MaxPool2d(2))
    classifier = [
        nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000),
    ]
    return nn.Sequential(OrderedDict(
        features=nn.Sequential(*features), avgpool=nn.AdaptiveAvgPool2d(7), flatten=nn.Flatten(),
        classifier=nn.Sequential(*classifier),
    ))


def conv_bn_relu(inside, outside, kernel, stride=1, padding=0):
    return nn.Sequential(OrderedDict(
        conv=conv(inside, outside, kernel, stride, padding), bn=nn.BatchNorm2d(outside, eps=0.001), relu=nn.ReLU(inplace=True)
    ))


class Inception(nn.Module):
    def __init__(self, inside, one, three_in, three, five_in, five, pool):
        super().__init__()
        self.branch1 = conv_bn_relu(inside, one, 1)
        self.branch2 = nn.Sequential(conv_bn_relu(inside, three_in, 1), conv_bn_relu(three_in, three, 3, 1, 1))
        # 3x3, as in torchvision.
        self.branch3 = nn.Sequential(conv_bn_relu(inside, five_in, 1), conv_bn_relu(five_in, five, 3, 1, 1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv_bn_relu(inside, pool, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.conv = conv_bn_relu(inside, 128, 1)
        self.fc1, self.fc2 = nn.Linear(2048, 1024), nn.Linear(1024, 1000)

    def forward(self, x):
        x = torch.flatten(self.conv(F.adaptive_avg_pool2d(x, 4)), 1)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.7, self.training))


class GoogLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = conv_bn_relu(3, 64, 7, 2, 3)
        self.conv2, self.conv3 = conv_bn_relu(64, 64, 1), conv_bn_relu(64, 192, 3, 1, 1)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1, self.aux2 = Auxiliary(512), Auxiliary(528)
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x):
        pool = lambda x, kernel: F.max_pool2d(x, kernel, 2, ceil_mode=True)
        x = pool(self.conv3(self.conv2(pool(self.conv1(x), 3))), 3)
        x = self.inception4a(pool(self.inception3b(self.inception3a(x)), 3))
        first = self.aux1(x) if self.training else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        second = self.aux2(x) if self.training else None
        x = self.inception5b(self.inception5a(pool(self.inception4e(x), 2)))
        x = self.fc(F.dropout(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1), 0.2, self.training))
        return (x, second, first) if self.training else x


NETWORKS = {
    "lenet5": lenet5,
    "resnet20-cifar": cifar_resnet20,
    "resnet18": lambda: resnet([2, 2, 2, 2], False),
    "resnet50": lambda: resnet([3, 4, 6, 3], True),
    "vgg16": vgg16,
    "googlenet": GoogLeNet,
}


def read_tensors(path):
    """The tensors of a .safetensors file: a length, a header in JSON, and bytes."""
    kinds = {"F32": torch.float32, "I64": torch.int64}
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = torch.frombuffer(data, dtype=kinds[entry["dtype"]], offset=start, count=(end - start) // kinds[entry["dtype"]].itemsize) \
            if end > start else torch.empty(0, dtype=kinds[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def network(request):
    """The network, images, labels and, if ours told them, logits."""
    case, name = request["case"], request["case"]["model"]
    if name not in NETWORKS:
        raise Refusal(f"there is no {name} in this script")
    model = NETWORKS[name]()
    if request["side"] == "warm":
        images = torch.randn(case["batch"], 1 if name == "lenet5" else 3, case["size"], case["size"])
        return model, images, torch.arange(case["batch"]) % 10, None
    state = read_tensors(request["shared"])
    inputs = [state.pop(f"bench.{name}") for name in ("images", "labels", "logits")]
    lacking = model.load_state_dict(state, strict=False)
    # What counts steps is no weight.
    wrong = [key for key in lacking.missing_keys if not key.endswith("num_batches_tracked")] + lacking.unexpected_keys
    if wrong:
        raise Refusal(f"the weights {', '.join(wrong)} do not fit")
    return model, *inputs


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prepare(request):
    """A function that does the work once, and how far its logits are from ours."""
    case, side = request["case"], request["side"]
    device, half = torch.device(case["device"]), case["precision"] == "bf16"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(request["seed"])
    model, images, labels, expected = network(request)
    model = model.to(device, memory_format=torch.channels_last).eval()
    images = images.to(device, memory_format=torch.channels_last)
    labels = labels.to(device)
    compiled = side in ("compile", "warm")
    if case["mode"] == "train":
        with torch.no_grad():
            logits = model(images)
        run = training(request, torch.compile(model.train()) if compiled else model.train(), images, labels, half)
    else:
        if half:
            model, images = model.to(torch.bfloat16), images.to(torch.bfloat16)
        forward = torch.compile(model, mode="reduce-overhead") if compiled else model

        def run():
            with torch.no_grad():
                return forward(images)

        logits = run().clone()
    distance = None if expected is None else ((logits.float().cpu() - expected).abs().max() / expected.abs().max()).item()
    del logits
    if side == "graph":
        run = recorded(run, device)
    for _ in range(1 if side == "warm" else WARM_UP):
        run()
    wait(device)
    return run, distance


def training(request, model, images, labels, half):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, fused=images.is_cuda)

    def run():
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            outputs = model(images)
        outputs = [logits.float() for logits in (outputs if isinstance(outputs, tuple) else (outputs,))]
        loss = F.cross_entropy(outputs[0], labels)
        for aux in outputs[1:]:
            loss = loss + request["aux_weight"] * F.cross_entropy(aux, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def recorded(run, device):
    """The same work as one CUDA graph."""
    if device.type != "cuda":
        raise Refusal("only a GPU has graphs")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()
    replay = lambda: (graph.replay(), kept)[0]
    return replay


def clear(device):
    """Gives up what the last case took."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main():
    # What libraries print is no answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    say = lambda answer: print(json.dumps(answer), file=out, flush=True)
    run, device = None, torch.device("cpu")
    for line in sys.stdin:
        if line.startswith("run "):
            repeats = int(line.split()[1])
            wait(device)
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            wait(device)
            say({"ms": 1e3 * (time.perf_counter() - start) / repeats})
        elif line.strip() == "memory":
            say({"memory": None})
        else:
            request = json.loads(line)
            run = None
            clear(device)
            device = torch.device(request["case"]["device"])
            try:
                run, distance = prepare(request)
                say({"ready": {"distance": distance, "versions": {"torch": torch.__version__}}})
            except Exception as error:  # whatever PyTorch has against it is this side's answer
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                run = error = None
                clear(device)
                say({"error": reason})


if __name__ == "__main__":
    main()
