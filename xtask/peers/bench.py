"""A peer of `cargo xtask bench --peers`: does a case's work in PyTorch, ONNX Runtime or OpenVINO, when it is its turn.

Reads a request (a line of JSON, see crates/striate-bench/src/turns.rs) and answers `{"ready": ...}` or `{"error": REASON}`; then to
`run N` with the milliseconds of one of N runs, and to `memory` with the peak of this process. Weights, images and logits are those
of the file that the request names.
"""

import json
import os
import subprocess
import sys
import time

LR = 1e-6


class Refusal(Exception):
    """A reason in one line."""


# Networks that torchvision has not, with our names for their layers: torch_cuda.py has them.
OWN = ("lenet5", "resnet20-cifar")


def read_model(request):
    """The network with the file's weights, and the file's images, labels and logits."""
    import torchvision
    from safetensors.torch import load_file

    state = load_file(request["shared"])
    inputs = [state.pop(f"bench.{name}") for name in ("images", "labels", "logits")]
    name, known = request["case"]["model"], request["torchvision"]
    if known:
        options = {"init_weights": False} if known in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(known, weights=None, **options)
    elif name in OWN:
        from torch_cuda import NETWORKS

        model = NETWORKS[name]()
    else:
        raise Refusal(f"there is no {name} in torchvision")
    lacking = model.load_state_dict(state, strict=False)
    # What counts steps is no weight.
    wrong = [key for key in lacking.missing_keys if not key.endswith("num_batches_tracked")] + lacking.unexpected_keys
    if wrong:
        raise Refusal(f"the weights {', '.join(wrong)} do not fit")
    return model, *inputs


def versions(*modules):
    return {module.__name__: module.__version__.split("+")[0].split("-")[0] for module in modules}


def start():
    """What a program that uses PyTorch does before anything else."""
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


class InMemory:
    """A folder's pictures as arrays, of which each becomes Pillow's when it is asked for, as in torchvision's CIFAR10."""

    def __init__(self, folder):
        import numpy

        self.pictures = [(numpy.asarray(folder.loader(path)), label) for path, label in folder.samples]
        self.transform = folder.transform

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        from PIL import Image

        picture, label = self.pictures[index]
        return self.transform(Image.fromarray(picture)), label


def nothing(picture):
    """What is kept of a picture that is only decoded."""
    return 0


def loading(request):
    """An epoch of the DataLoader with a persistent worker for each thread, over the files that our side wrote."""
    import torch
    import torchvision
    from torchvision import transforms

    case, size = request["case"], request["case"]["size"]
    lists = {
        "loader-jpeg": [transforms.Resize(size), transforms.CenterCrop(size), transforms.RandomCrop(size, size // 8), transforms.RandomHorizontalFlip()],
        "loader-imagenet-train": [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()],
        "loader-imagenet-eval": [transforms.Resize(int(size / 0.875)), transforms.CenterCrop(size)],
        "loader-rand-augment": [transforms.RandomResizedCrop(size), transforms.RandAugment()],
        "loader-trivial-augment": [transforms.RandomResizedCrop(size), transforms.TrivialAugmentWide()],
        "loader-cifar-jpeg": [transforms.RandomCrop(size, 4), transforms.RandomHorizontalFlip()],
    }
    lists["loader-cifar-memory"] = lists["loader-cifar-jpeg"]
    if case["model"] == "loader-decode":
        transform = nothing
    else:
        values = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
        transform = transforms.Compose(lists[case["model"]] + values)
    torch.set_num_threads(1)
    torch.manual_seed(request["seed"])
    folder = os.path.splitext(request["shared"])[0] + ".pictures"
    data = torchvision.datasets.ImageFolder(folder, transform)
    if case["model"] == "loader-cifar-memory":
        data = InMemory(data)
    loader = torch.utils.data.DataLoader(
        data, case["batch"], shuffle=True, num_workers=case["threads"], persistent_workers=True
    )
    count_from_now()

    def run():
        for _ in loader:
            pass

    run()  # starts the workers
    return run, None, versions(torch, torchvision)


def prepare(request):
    """A function that does the work once, how far its logits are from the file's, and versions."""
    case, side = request["case"], request["side"]
    if case["mode"] == "start":
        return start, None, {}
    if case["mode"] == "load":
        return loading(request)
    import torch

    torch.set_num_threads(case["threads"])
    torch.manual_seed(request["seed"])
    model, images, labels, expected = read_model(request)
    half = case["precision"] == "bf16"
    lies = torch.contiguous_format if side in ("pytorch", "onnxruntime", "openvino") else torch.channels_last
    model, images = model.to(memory_format=lies).eval(), images.to(memory_format=lies)
    distance = lambda logits: ((logits.float() - expected).abs().max() / expected.abs().max()).item()
    if side in ("onnxruntime", "openvino"):
        with torch.no_grad():
            run, known = exported(side, model, images, case)
            count_from_now()
            return run, distance(run()), known
    known = versions(torch)
    count_from_now()
    if case["mode"] in ("pair", "apart"):
        return beside(request, model.train(), images, labels), None, known
    if case["mode"] == "train":
        with torch.no_grad():
            far = distance(model(images))
        return training(request, model.train(), images, labels), far, known
    if half:
        model, images = model.to(torch.bfloat16), images.to(torch.bfloat16)
        count_from_now()
    if side == "pytorch-compile":
        import torch._inductor.config as config

        config.freezing = True
        model = torch.compile(model)
    guard = torch.no_grad if side == "pytorch-compile" else torch.inference_mode

    def run():
        with guard():
            return model(images)

    return run, distance(run().clone()), known


def training(request, model, images, labels):
    import torch
    from torch.nn import functional as F

    fused, half = request["side"] == "pytorch-tuned", request["case"]["precision"] == "bf16"
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, fused=fused)
    forward = torch.compile(model) if request["side"] == "pytorch-compile" else model

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = forward(images)
        outputs = [logits.float() for logits in (outputs if isinstance(outputs, tuple) else (outputs,))]
        loss = F.cross_entropy(outputs[0], labels)
        for aux in outputs[1:]:
            loss = loss + request["aux_weight"] * F.cross_entropy(aux, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def beside(request, model, images, labels):
    """A training step beside that of another process, which is this script again; in a pair, DDP sums gradients over Gloo."""
    import socket

    import torch.distributed as dist

    other = None
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meet = dict(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
        os.environ.update(meet, RANK="0")
        command, env = [sys.executable, __file__], {**os.environ, "RANK": "1"}
        other = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        other.stdin.write(json.dumps(request) + "\n")
    dist.init_process_group("gloo")
    if request["case"]["mode"] == "pair":
        from torch.nn.parallel import DistributedDataParallel

        model = DistributedDataParallel(model)
    step = training(request, model, images, labels)
    dist.barrier()
    if other is None:
        return step
    other.stdout.readline()

    def run():
        other.stdin.write("run 1\n")
        step()
        if not other.stdout.readline().startswith('{"ms"'):
            raise RuntimeError("the other process of a pair ended")

    return run


def exported(side, model, images, case):
    """The work of a network that was exported to ONNX."""
    import torch

    path = f"{os.getpid()}.onnx"
    torch.onnx.export(model, (images,), path, input_names=["x"], dynamo=False)
    try:
        if side == "onnxruntime":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = case["threads"]
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            pixels = images.numpy()
            return lambda: torch.from_numpy(session.run(None, {"x": pixels})[0]), versions(onnxruntime)
        import openvino

        kind = "bf16" if case["precision"] == "bf16" else "f32"
        settings = {"INFERENCE_NUM_THREADS": case["threads"], "INFERENCE_PRECISION_HINT": kind, "PERFORMANCE_HINT": "LATENCY"}
        core = openvino.Core()
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
        pixels = images.numpy()
        return lambda: torch.from_numpy(request.infer({0: pixels}, share_inputs=True)[0]), versions(openvino)
    finally:
        os.remove(path)


def status(key):
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1]) / 1024


class Base:
    """Resident memory before the first pass, in MiB; none where the system does not tell."""

    before = None


def count_from_now():
    """Peaks count from now on."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        Base.before = status("VmRSS")
    except OSError:
        pass


def main():
    # What libraries print is no answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    say = lambda answer: print(json.dumps(answer), file=out, flush=True)
    try:
        run, distance, known = prepare(json.loads(sys.stdin.readline()))
    except Refusal as refusal:
        return say({"error": str(refusal)})
    say({"ready": {"distance": distance, "versions": known}})
    for line in sys.stdin:
        if line.strip() == "memory":
            say({"memory": None if Base.before is None else [status("VmHWM") - Base.before, status("VmHWM")]})
            continue
        repeats = int(line.split()[1])
        start_time = time.perf_counter()
        for _ in range(repeats):
            run()
        say({"ms": 1e3 * (time.perf_counter() - start_time) / repeats})


if __name__ == "__main__":
    main()
