"""Writes the licences of what libtorch is made of and linked to: python notices.py > NOTICES-libtorch

Takes them from the wheels of PyTorch and of CUDA's libraries that are installed for this Python. Each text stands once, with all
that carry it.
"""

import importlib.metadata
import sys


def main():
    carried = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name != "torch" and not name.startswith("nvidia"):
            continue
        for file in distribution.files:
            path = file.as_posix()
            # PyTorch's own is in LICENSE-libtorch.
            if ".dist-info/" in path and "licen" in file.name.lower() and not path.endswith("/licenses/LICENSE"):
                part = path.partition("/third_party/")[2].rpartition("/")[0]
                text = "\n".join(line.rstrip() for line in file.read_text().strip().splitlines())
                carried.setdefault(text, set()).add(part or f"{name} {distribution.version}")
    print("libtorch contains or is linked to these works. Not all of them are in each archive.")
    for text, names in sorted(carried.items(), key=lambda item: sorted(item[1])):
        sys.stdout.write(f"\n{'-' * 80}\n{', '.join(sorted(names))}\n\n{text}\n")


if __name__ == "__main__":
    main()
