"""Compares raw exports with what Striate gives, in three runtimes that share no code with it.

    python check.py FOLDER [NAME...]

FOLDER has NAME.onnx (`striate export BUNDLE --raw`) and NAME.io.safetensors with the tensors `input` and `logits` (`striate run`).
Each file has to pass onnx's own checker, and ONNX Runtime and OpenVINO have to give the logits within 1e-5 of the largest, and the
same classes. Takes onnx, onnxruntime, openvino, safetensors and numpy.
"""

import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import openvino
from safetensors.numpy import load_file

BOUND = 1e-5


def onnx_runtime(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def open_vino(path, inputs):
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(path, "CPU", config)(inputs)[0]


def main(folder, names):
    failed = False
    for tensors in sorted(Path(folder).glob("*.io.safetensors")):
        name = tensors.name.removesuffix(".io.safetensors")
        if names and name not in names:
            continue
        path = str(tensors.with_name(f"{name}.onnx"))
        onnx.checker.check_model(path, full_check=True)
        tensors = load_file(tensors)
        expected, line = tensors["logits"], []
        for runtime in (onnx_runtime, open_vino):
            got = runtime(path, tensors["input"])
            difference = numpy.abs(got - expected).max() / numpy.abs(expected).max()
            classes = (got.argmax(1) == expected.argmax(1)).all()
            failed |= not (difference <= BOUND and classes)
            line.append(f"{runtime.__name__} {difference:.1e}{'' if classes else ' OTHER CLASSES'}")
        print(f"{name}: {', '.join(line)}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
