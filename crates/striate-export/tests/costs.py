"""What each way to predict with a bundle costs: its size, its start, a picture, and memory.

    python costs.py BUNDLE PICTURE [--programs FOLDER] [--rounds 5] [--count 50]

Run it on a machine that does nothing else. It builds `striate` and the two examples for release, or takes them from FOLDER
(`striate`, `striate-engine`, `predict_tract`, `predict_ort`), exports BUNDLE, and runs all programs in turns:

- size: the program and the libraries that it loads, without symbols, and without glibc's
- start: from the call to the first answer
- ms: for one more picture of many in one call, decoding included
- memory: the most that was resident, with one picture

Prints a table in Markdown. The Python that runs it needs onnxruntime and pillow.
"""

import argparse
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
GLIBC = re.compile(r"(ld-linux|linux-vdso|lib(c|dl|m|pthread|resolv|rt|util))\b")
PYTHON = """
import json, sys, numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
grey = session.get_inputs()[0].shape[3] == 1
for path in sys.argv[2:]:
    pixels = numpy.asarray(Image.open(path).convert("L" if grey else "RGB"))
    probabilities = session.run(None, {"images": pixels[None, :, :, None] if grey else pixels[None]})[0][0]
    for index in probabilities.argsort()[:-4:-1]:
        print(f"{classes[index]} {100 * probabilities[index]:.1f}%")
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("picture")
    parser.add_argument("--programs", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=50)
    args = parser.parse_args()
    programs = args.programs or build()
    library = onnx_runtime()
    with tempfile.TemporaryDirectory() as folder:
        onnx, script = os.path.join(folder, "x.onnx"), os.path.join(folder, "predict.py")
        Path(script).write_text(PYTHON)
        run([programs / "striate", "export", args.bundle, "-o", onnx], library)
        ways = {
            "`striate` and libtorch": (
                [programs / "striate", "predict", "--top", "3", args.bundle],
                programs_size(programs / "striate", programs / "striate-engine"),
            ),
            "tract, in Rust": ([programs / "predict_tract", onnx], programs_size(programs / "predict_tract")),
            "ONNX Runtime, in Rust": ([programs / "predict_ort", onnx], programs_size(programs / "predict_ort") + size(library)),
            "ONNX Runtime, in Python": ([sys.executable, script, onnx], python()),
        }
        seen = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, (command, _) in ways.items():
                one, memory, answer = run([*command, args.picture], library)
                many, _, _ = run([*command, *[args.picture] * (args.count + 1)], library)
                seen[name].append((one, (many - one) / args.count, memory, answer))
    print("| | size, MB | start, s | ms a picture | memory, MiB |\n|---|---:|---:|---:|---:|")
    for name, (_, bytes) in ways.items():
        start, each, memory, _ = zip(*seen[name])
        start, each, memory = statistics.median(start), statistics.median(each), statistics.median(memory)
        print(f"| {name} | {bytes / 1e6:.0f} | {start:.2f} | {1e3 * each:.1f} | {memory / 1024:.0f} |")
    for name, runs in seen.items():
        print(f"{name}: {runs[0][3]}", file=sys.stderr)


def build():
    """Builds the programs; the folder with links to them."""
    cargo = ["cargo", "build", "--release"]
    subprocess.run([*cargo, "-p", "striate-cli"], cwd=ROOT, check=True)
    subprocess.run([*cargo, "-p", "striate-export", "--features", "check", "--example", "predict_tract"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    manifest = ROOT / "crates/striate-export/examples/predict_ort/Cargo.toml"
    subprocess.run([*cargo, "--manifest-path", manifest, "--target-dir", target / "predict_ort"], cwd=ROOT, check=True)
    folder = target / "costs"
    folder.mkdir(exist_ok=True)
    for built in ["striate", "striate-engine", "examples/predict_tract", "../predict_ort/release/predict_ort"]:
        link = folder / Path(built).name
        link.unlink(missing_ok=True)
        os.link(target / "release" / built, link)
    return folder


def run(command, library):
    """Seconds, peak memory in KiB, and the first line of the output."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "ORT_DYLIB_PATH": str(library)})
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        sys.exit(f"{command[0]} failed")
    return seconds, usage.ru_maxrss, output.partition("\n")[0]


def programs_size(*paths):
    """Bytes of programs and of what they are linked to, without symbols."""
    loaded = set(paths)
    for path in paths:
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        found = [line.split(" => ") for line in linked.splitlines() if " => /" in line]
        loaded |= {path.split(" (")[0] for name, path in found if not GLIBC.match(name.strip())}
    total = 0
    for path in loaded:
        with tempfile.NamedTemporaryFile() as stripped:
            subprocess.run(["strip", "--strip-unneeded", "-o", stripped.name, path], check=True)
            total += size(stripped.name)
    return total


def onnx_runtime():
    import onnxruntime

    return next(Path(onnxruntime.__path__[0]).glob("capi/libonnxruntime.so*"))


def python():
    """Bytes of the packages, with all that they require."""
    waiting, seen, total = ["onnxruntime", "pillow"], set(), 0
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        total += sum(size(path) for file in distribution.files if (path := file.locate()).exists())
        required = [line for line in distribution.requires or [] if "extra ==" not in line]
        waiting += [re.match(r"[\w.-]+", line)[0].lower() for line in required]
    return total


def size(path):
    return os.path.getsize(path)


if __name__ == "__main__":
    main()
