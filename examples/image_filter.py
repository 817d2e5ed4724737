"""Grey values, edges and other filters on a photograph, each in one call, written as one picture.

python examples/image_filter.py photo.png --out filtered.png
python examples/image_filter.py photos.npz --key raccoon_face               # an array (H, W) or (H, W, 3), uint8
python examples/image_filter.py photo.png --filters sharpen sobel
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from fastconv import filter_image
from fastconv.filters import KERNELS

NAMES = ("grayscale", "sobel", "sobel_x", "gaussian", "sharpen")


def read(path, key):
    """A photograph as bytes, (H, W) or (H, W, 3)."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key or arrays.files[0]]
    image = imread(path)
    image = image if image.dtype == np.uint8 else np.round(image * 255).astype(np.uint8)
    return image[..., :3] if image.ndim == 3 else image


def sheet(image, filtered):
    """The photograph and what each filter made of it, three to a row."""
    pictures = {"photograph": image, **filtered}
    rows, ratio = -(-len(pictures) // 3), image.shape[0] / image.shape[1]
    figure = Figure(figsize=(9, rows * (3 * ratio + 0.3)), dpi=100, layout="constrained")
    frames = figure.subplots(rows, 3, squeeze=False).ravel()
    for frame in frames:
        frame.set_axis_off()
    for frame, (name, picture) in zip(frames, pictures.items(), strict=False):
        frame.imshow(picture, cmap="gray", vmin=0, vmax=255)
        frame.set_title(name, fontsize=10)
    return figure


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Filters on a photograph")
    parser.add_argument("photo", type=Path, help="a picture, or an .npz file with arrays")
    parser.add_argument("--key", help="the array in the .npz file (default: the first)")
    parser.add_argument("--filters", nargs="+", choices=(*KERNELS, "sobel"), default=NAMES)
    parser.add_argument("--out", type=Path, default=Path("filtered.png"))
    options = parser.parse_args(arguments)

    image = read(options.photo, options.key)
    names = [name for name in options.filters if name != "grayscale" or image.ndim == 3]
    filtered = {}
    for name in names:
        offset = 128 if name in ("sobel_x", "sobel_y") else 0  # so that both signs can be seen
        filtered[name] = filter_image(image, name, offset=offset)
        started = time.perf_counter()
        filter_image(image, name, offset=offset)
        print(f"{name:10}  {1e3 * (time.perf_counter() - started):.2f} ms for {' x '.join(map(str, image.shape))}")
    sheet(image, filtered).savefig(options.out)
    print(f"saved       {options.out}")
    return filtered


if __name__ == "__main__":
    main()
