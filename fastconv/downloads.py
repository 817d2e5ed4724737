"""Files from the web, kept once their checksum is right."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


def download(url: str, checksum: str, folder: str | PathLike[str], *, name: str | None = None) -> Path:
    """The path of a file in `folder`, fetched from `url` unless it is there already.

    A file whose checksum is wrong is never left under its name; one that is there with a wrong checksum is replaced.

    Parameters
    ----------
    checksum : "sha256:..." or a bare sha256; also md5, sha1, sha512 with their names in front.
    name : of the file; the last part of the URL if None.

    Raises
    ------
    ImportError : pooch is not installed.
    ValueError : `checksum` is none, or what the server sent has another one.
    OSError : the server cannot be reached or refuses.

    Examples
    --------
    >>> download("https://example.org/data.npz", "none", ".")
    Traceback (most recent call last):
    ValueError: download: checksum must be hexadecimal digits, 64 for sha256, got 'none'
    """
    algorithm, _, digits = checksum.rpartition(":")
    algorithm = algorithm or "sha256"
    length = DIGITS.get(algorithm)
    if not re.fullmatch(r"[0-9a-fA-F]*", digits) or len(digits) != length:
        raise ValueError(
            f"download: checksum must be hexadecimal digits, {length or 64} for {algorithm}, got {checksum!r}"
        )
    try:
        import pooch
    except ImportError as error:
        raise ImportError('download: needs pooch, install it with: pip install "fastconv[download]"') from error
    name = name or Path(urlsplit(url).path).name
    return Path(pooch.retrieve(url, f"{algorithm}:{digits.lower()}", fname=name, path=Path(folder)))
