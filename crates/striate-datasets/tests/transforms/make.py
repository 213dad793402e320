"""Makes transforms.safetensors: a picture and what torchvision makes of it, operation by operation.

    python make.py        (torchvision 0.28, Pillow 12; `cargo xtask fixtures` runs it)

Each tensor is uint8, [height, width, channels]. `picture` and `grey` are the inputs.
"""

from pathlib import Path

import torch
import torchvision.transforms.functional as F
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

HERE = Path(__file__).parent
NEAREST, BILINEAR, BICUBIC = InterpolationMode.NEAREST, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC

# The picture that tests of decoding read, with all hues beside it.
photo = Image.open(HERE.parent / "pictures" / "photo.png").convert("RGB")
hues = Image.new("HSV", (16, photo.height))
hues.putdata([(16 * x + 3 * y, 255 - 5 * y, 128 + 8 * x) for y in range(photo.height) for x in range(16)])
picture = Image.new("RGB", (photo.width + 16, photo.height))
picture.paste(photo, (0, 0))
picture.paste(hues.convert("RGB"), (photo.width, 0))
grey = picture.convert("L")

made = {"picture": picture, "grey": grey}
starts = [[0, 0], [63, 0], [63, 31], [0, 31]]
ends = [[5, 3], [60, 1], [58, 29], [2, 25]]
for prefix, image in {"": picture, "grey-": grey}.items():
    each = {
        "brighter": F.adjust_brightness(image, 1.4),
        "darker": F.adjust_brightness(image, 0.7),
        "contrast": F.adjust_contrast(image, 1.9),
        "flat": F.adjust_contrast(image, 0.35),
        "saturated": F.adjust_saturation(image, 1.8),
        "pale": F.adjust_saturation(image, 0.25),
        "hue": F.adjust_hue(image, 0.31),
        "hue-back": F.adjust_hue(image, -0.08),
        "invert": F.invert(image),
        "solarise": F.solarize(image, 178.5),
        "posterise": F.posterize(image, 3),
        "equalise": F.equalize(image),
        "autocontrast": F.autocontrast(F.adjust_contrast(image, 0.35)),
        "sharp": F.adjust_sharpness(image, 2.0),
        "smooth": F.adjust_sharpness(image, 0.1),
        "blur": F.gaussian_blur(image, [5, 5], [1.3, 1.3]),
        "wide-blur": F.gaussian_blur(image, [23, 23], [2.0, 2.0]),
        "affine-nearest": F.affine(image, 17.0, [3, -2], 1.2, [8.0, 0.0], NEAREST),
        "affine-bilinear": F.affine(image, -33.0, [-4, 5], 0.8, [0.0, 12.0], BILINEAR),
        "scaled": F.affine(image, 0.0, [5, 1], 0.7, [0.0, 0.0], NEAREST),
        "rotate": F.rotate(image, -30.0, NEAREST),
        "rotate-bilinear": F.rotate(image, 12.5, BILINEAR),
        "shear-x": _apply_op(image, "ShearX", 0.3, NEAREST, None),
        "shear-y": _apply_op(image, "ShearY", -0.21, NEAREST, None),
        "translate-x": _apply_op(image, "TranslateX", -9.7, NEAREST, None),
        "translate-y": _apply_op(image, "TranslateY", 6.0, NEAREST, None),
        "perspective": F.perspective(image, starts, ends, BILINEAR),
        "perspective-nearest": F.perspective(image, starts, ends, NEAREST),
        "resized-crop": F.resized_crop(image, 3, 7, 22, 41, [24, 20], BILINEAR),
        "resized-crop-bicubic": F.resized_crop(image, 0, 1, 30, 33, [45, 50], BICUBIC),
        "padded-crop": F.crop(F.pad(image, 4), 7, 2, 32, 64),
        "centre-crop": F.center_crop(image, [19, 24]),
    }
    made |= {prefix + name: image for name, image in each.items()}

tensors = {name: F.pil_to_tensor(image).permute(1, 2, 0).contiguous() for name, image in made.items()}
save_file(tensors, HERE / "transforms.safetensors")
