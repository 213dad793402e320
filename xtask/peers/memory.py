"""The peak memory of a forward pass in PyTorch: the counterpart of `crates/striate-cli/examples/memory.rs`. Linux only.

python memory.py MODEL BATCH [contiguous | channels-last] [train]

Prints MiB of resident memory: what the first forward pass (with `train`, a forward and a backward pass) peaks at, and what
three of them do, above what the process has after a pass of one image of 64x64, which loads the code of all layers.
"""

import sys

import torch
import torchvision


def status(key):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) / 1024


def main():
    name, batch = sys.argv[1], int(sys.argv[2])
    train = "train" in sys.argv
    torch.set_num_threads(2)
    images = torch.rand(batch, 3, 224, 224)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(**options).train(train)
    if "channels-last" in sys.argv:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)

    def run(images):
        if train:
            model(images).sum().backward()
        else:
            with torch.inference_mode():
                model(images)

    run(images[:1, :, :64, :64].clone())
    base = status("VmRSS")
    # The peak counts from now on.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    run(images)
    first = status("VmHWM") - base
    run(images)
    run(images)
    three = status("VmHWM") - base
    whole = status("VmHWM")
    print(f"{name} batch {batch}: first {first:.1f}, three {three:.1f}, the whole process {whole:.0f} MiB")


if __name__ == "__main__":
    main()
