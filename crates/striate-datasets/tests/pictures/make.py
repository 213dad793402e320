"""Makes the files in this folder, with what Pillow reads in them: `python make.py` (Pillow 12, numpy)."""
from pathlib import Path
import numpy as np
from PIL import Image

here = Path(__file__).parent
y, x = np.mgrid[0:5, 0:7]
small = Image.fromarray(np.stack([x * 40, y * 60, 255 - x * 20 - y * 25], -1).astype(np.uint8))
small.save(here / "small.bmp")
small.save(here / "small.tif")
small.save(here / "small.ppm")
small.save(here / "small.webp", lossless=True)
# Two frames; one colour of the palette is transparent.
small.save(here / "small.gif", save_all=True, append_images=[small.rotate(180)], transparency=3)
(here / "small.rgb").write_bytes(small.tobytes())
(here / "small.grey").write_bytes(small.convert("L").tobytes())
(here / "small-gif.rgb").write_bytes(Image.open(here / "small.gif").convert("RGB").tobytes())

rng = np.random.default_rng(1)
photo = Image.fromarray(rng.integers(0, 255, (4, 6, 3)).astype(np.uint8)).resize((48, 32), Image.BICUBIC)
photo.save(here / "photo.jpg", quality=80)
photo.save(here / "progressive.jpg", quality=80, progressive=True)
photo.save(here / "restart.jpg", quality=80, restart_marker_blocks=2)
photo.save(here / "photo.png")
photo.quantize(32).save(here / "photo.gif")
(here / "photo.grey").write_bytes(Image.open(here / "photo.png").convert("L").tobytes())
# As Adobe's programs write pictures for printing.
Image.new("CMYK", (8, 8), (10, 200, 30, 5)).save(here / "cmyk.jpg", quality=50)

# JPEGs of each kind that is decoded to libjpeg's bits; blocks reach beyond the borders, and the last has codes of all lengths.
for name, size, options in [
    ("444", (45, 31), dict(subsampling=0)),
    ("422", (45, 31), dict(subsampling=1, optimize=True)),
    ("420", (45, 31), dict(subsampling=2, restart_marker_blocks=2)),
    ("grey", (30, 19), dict()),
    ("noise", (33, 40), dict(quality=100)),
]:
    noise = rng.integers(0, 255, (size[1] // 4, size[0] // 4, 3)).astype(np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.NEAREST if name == "noise" else Image.BICUBIC)
    picture = picture.convert("L") if name == "grey" else picture
    picture.save(here / f"jpeg-{name}.jpg", **({"quality": 85} | options))
    (here / f"jpeg-{name}.rgb").write_bytes(Image.open(here / f"jpeg-{name}.jpg").convert("RGB").tobytes())
# Of two columns of colours, libjpeg repeats each.
photo.resize((4, 9), Image.BICUBIC).save(here / "jpeg-narrow.jpg", quality=85, subsampling=2)
(here / "jpeg-narrow.rgb").write_bytes(Image.open(here / "jpeg-narrow.jpg").convert("RGB").tobytes())
