"""Progress of an epoch: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss.

    >>> clock(61.5), clock(3600)
    ('1:01', '1:00:00')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Silent:
    """Shows nothing."""

    def update(self, images: int, loss: float) -> None:
        """`images` more are done; `loss` is the mean so far."""

    def close(self) -> None:
        """The epoch is over."""


class Bar(Silent):
    """A tqdm bar on stderr with images per second, the time left and the loss."""

    def __init__(self, tqdm: Any, total: int, description: str):
        self._bar = tqdm(
            total=total, desc=description, unit=" images", unit_scale=True, leave=False, dynamic_ncols=True
        )

    def update(self, images: int, loss: float) -> None:
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(images)

    def close(self) -> None:
        self._bar.close()


class Lines(Silent):
    """The same as a line on stdout every SECONDS_BETWEEN_LINES: short epochs print none."""

    def __init__(self, total: int, description: str):
        self._total, self._description = total, description
        self._done, self._started = 0, time.perf_counter()
        self._printed = self._started

    def update(self, images: int, loss: float) -> None:
        self._done += images
        now = time.perf_counter()
        if now - self._printed < SECONDS_BETWEEN_LINES or self._done == self._total:
            return
        self._printed = now
        rate = self._done / (now - self._started)
        print(
            f"{self._description}  {self._done:,} of {self._total:,} images  {rate:,.0f} images/s  "
            f"ETA {clock((self._total - self._done) / rate)}  loss {loss:.4f}",
            flush=True,
        )


def reporter(total: int, description: str) -> Silent:
    """A bar where stderr is a terminal and tqdm is installed, else lines."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            return Bar(tqdm, total, description)
    return Lines(total, description)
