"""Milliseconds of one forward pass on two threads, Striate's plan and others taking turns: one run of each, then the next of each.

    cargo build --release -p striate-infer --example latency
    python xtask/peers/inference.py target/release/examples/latency [--models resnet18,...] [--batches 1,16] [--runs 15]

Needs torch, torchvision and, for ONNX Runtime and OpenVINO, onnx, onnxruntime and openvino. Each peer is a process of its own with random weights
and inputs; what is missing or fails is left out and told. Prints one JSON line for each model and batch, then a table in Markdown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

THREADS = 2
PLANS = ["plan fp32", "plan bf16"]
PEERS = ["eager", "compile", "onnxruntime", "openvino", "openvino bf16", "eager bf16"]


def torch_model(name):
    import torch
    import torchvision

    torch.set_num_threads(THREADS)
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))
    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


def runner(peer, name, batch):
    """A function of no arguments that runs the model once."""
    import torch

    model, x = torch_model(name), torch.randn(batch, 3, 224, 224)
    if peer == "eager":
        return lambda: model(x)
    if peer == "eager bf16":
        model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)
        x = x.to(torch.bfloat16).to(memory_format=torch.channels_last)
        return lambda: model(x)
    if peer == "compile":
        import torch._inductor.config as config

        config.freezing = True
        compiled = torch.compile(model)
        return lambda: compiled(x)
    expected = model(x)
    path = f"{os.environ.get('TMPDIR', '/tmp')}/peer-{os.getpid()}.onnx"
    torch.onnx.export(model, (x,), path, input_names=["x"], dynamo=False)
    if peer == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        run = lambda: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    else:
        import openvino

        kind = "bf16" if peer.endswith("bf16") else "f32"
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": kind, "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
        run = lambda: torch.from_numpy(request.infer({0: x.numpy()}, share_inputs=True)[0])
    os.remove(path)
    distance = ((run() - expected).abs().max() / expected.abs().max()).item()
    assert distance < (0.1 if peer.endswith("bf16") else 1e-3), distance
    return run


def work(peer, name, batch):
    """A peer's process: `ready`, then one run's milliseconds for each line."""
    import torch

    out, sys.stdout = sys.stdout, sys.stderr
    with torch.inference_mode() if not peer == "compile" else torch.no_grad():
        run = runner(peer, name, batch)
        run(), run()
        print("ready", file=out, flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            run()
            print(1e3 * (time.perf_counter() - start), file=out, flush=True)


def start(side, args, name, batch):
    if side in PLANS:
        command = [args.latency, name, str(batch), "224", side.split()[1], "turns"]
    else:
        command = [sys.executable, __file__, "--work", side, name, str(batch)]
    # A temporary file for errors, since nobody reads a pipe.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def ask(process, line=""):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def measure(args, name, batch):
    sides = {}
    for side in PLANS + args.peers:
        process = start(side, args, name, batch)
        if process.stdout.readline().strip() == "ready":
            sides[side] = process
        else:
            print(f"{side} of {name} does not run", file=sys.stderr)
    times = {side: [] for side in sides}
    for run in range(args.runs + 2):
        for side, process in sides.items():
            time_ms = float(ask(process))
            if run >= 2:
                times[side].append(time_ms)
    for process in sides.values():
        process.stdin.close()
        process.wait()
    return {side: {"median": statistics.median(t), "min": min(t), "max": max(t)} for side, t in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("latency", nargs="?")
    parser.add_argument("--models", default="resnet18,resnet50,vgg16,googlenet,alexnet")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--peers", default=",".join(PEERS), type=lambda text: [peer for peer in text.split(",") if peer])
    parser.add_argument("--runs", default=15, type=int)
    parser.add_argument("--work", nargs=3)
    args = parser.parse_args()
    if args.work:
        peer, name, batch = args.work
        return work(peer, name, int(batch))
    if isinstance(args.peers, str):
        args.peers = args.peers.split(",")
    sides = PLANS + args.peers
    rows = []
    for name in args.models.split(","):
        for batch in args.batches.split(","):
            result = measure(args, name, int(batch))
            print(json.dumps({"model": name, "batch": int(batch), "ms": result}), flush=True)
            cells = [f"{result[side]['median']:.1f}" if side in result else "" for side in sides]
            rows.append(f"| {name} | {batch} | " + " | ".join(cells) + " |")
    print("\n| model | batch | " + " | ".join(sides) + " |\n|---" * 1 + "|---" * (len(sides) + 1) + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
