"""Pictures in folders, one folder per class, as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastconv import images

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def class_names(folder: Path) -> tuple[str, ...]:
    """The sub-folders' names, sorted; hidden ones are left out. ValueError if there are none."""
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        raise ValueError(f"image_folder: {folder} must have a sub-folder per class, got none")
    return names


def read(
    folder: Path, classes: tuple[str, ...], size: tuple[int, int] | None, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, channels, H, W) and labels (N,) of all pictures, in the order of classes and file names."""
    found: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        paths = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"image_folder: {folder / name} must have a picture ({', '.join(sorted(SUFFIXES))})")
        for path in paths:
            picture = images.read_images(path)
            image = images.fit(picture, (channels, *(size or picture.shape[2:])))[0]
            if found and image.shape != found[0].shape:
                raise ValueError(
                    f"image_folder: size must be given unless all pictures have one, got {found[0].shape[1:]} and, "
                    f"of {path}, {image.shape[1:]}"
                )
            found.append(image)
            labels.append(label)
    return np.stack(found), np.array(labels, np.int64)
