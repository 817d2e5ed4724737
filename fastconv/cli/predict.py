"""`fastconv predict`."""

from __future__ import annotations

import argparse

from fastconv.cli.options import positive_integer, users_mistakes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `predict`."""
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL.npz", help="what train wrote")
    add("--top", type=positive_integer, default=3, metavar="N", help="answers per image (default: 3)")
    add("--invert", action="store_true", help="for dark ink on a light ground: the data sets' is light")
    add("--mirror", action="store_true", help="average over each image and its mirror image")
    add("images", nargs="+", metavar="IMAGE", help="pictures (.png) or arrays (.npy)")


def predict(options: argparse.Namespace) -> int:
    """Classify images with a model that `train` wrote: a line per image with classes and probabilities."""
    import numpy as np

    from fastconv import activations, images
    from fastconv.nn import load, read_meta

    with users_mistakes():
        model = load(options.model)
        shape = model.input_shape
        if shape is None or len(shape) != 3:
            raise ValueError(f"{options.model}: the model must know its input shape (C, H, W), got {shape}")
        classes = read_meta(options.model).get("classes")
        width = max(len(path) for path in options.images)
        for path in options.images:
            x = images.fit(images.read_images(path), (shape[0], shape[1], shape[2]))
            scores = model.predict(1 - x if options.invert else x, mirror=options.mirror)
            for row in activations.softmax(scores.astype(np.float64)):
                best = np.argsort(-row, kind="stable")[: options.top]
                answers = (f"{classes[i] if classes else i} {row[i]:6.1%}" for i in best)
                print(f"{path:{width}}  {'   '.join(answers)}")
    return 0
