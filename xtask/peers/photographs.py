"""Cuts photographs of about 500x375, quality 90, out of scikit-image's samples: photographs.py WHEEL OUT [COUNT]

WHEEL is scikit-image's 0.17.2, which still holds the samples; docs/performance.md says how to get it. OUT gets a folder for each
of four classes, for `STRIATE_BENCH_PHOTOGRAPHS=OUT cargo xtask bench --filter load`.
"""

import io
import pathlib
import sys
import zipfile

import numpy
from PIL import Image

SAMPLES = (
    "astronaut.png chelsea.png coffee.png motorcycle_left.png motorcycle_right.png rocket.jpg retina.jpg hubble_deep_field.jpg ihc.png"
).split()
COUNT, CLASSES = 400, 4


def main(wheel, out, count=COUNT):
    archive = zipfile.ZipFile(wheel)
    samples = [Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB") for name in SAMPLES]
    rng = numpy.random.default_rng(1)
    for number in range(int(count)):
        sample = samples[number % len(samples)]
        width, height = int(rng.integers(480, 521)), int(rng.integers(355, 396))
        if number % 4 == 3:
            width, height = height, width
        # A part of the sample, enlarged where the sample is small.
        share = rng.uniform(0.75, 1.0) * min(sample.width / width, sample.height / height)
        cut_width, cut_height = int(width * share), int(height * share)
        x, y = int(rng.integers(0, sample.width - cut_width + 1)), int(rng.integers(0, sample.height - cut_height + 1))
        picture = sample.crop((x, y, x + cut_width, y + cut_height)).resize((width, height), Image.LANCZOS)
        path = pathlib.Path(out) / f"class{number % CLASSES}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
