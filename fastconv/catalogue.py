"""The one named catalogue of convolutions: what the tests check and the benchmarks time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastconv.arguments import Pads, Pair


@dataclass(frozen=True)
class Case:
    """Sizes of a convolution of N images, with a name that says why it is here."""

    name: str
    N: int
    C: int
    H: int
    W: int
    F: int
    KH: int
    KW: int
    stride: int | Pair = 1
    padding: int | Pads | str = 0
    dilation: int | Pair = 1
    groups: int = 1

    def x_shape(self, layout: str = "NCHW") -> tuple[int, ...]:
        return (self.N, self.H, self.W, self.C) if layout == "NHWC" else (self.N, self.C, self.H, self.W)

    def w_shape(self, layout: str = "NCHW") -> tuple[int, ...]:
        channels = self.C // self.groups
        if layout == "NHWC":
            return self.KH, self.KW, channels, self.F
        return self.F, channels, self.KH, self.KW

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `conv2d`."""
        return {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups,
        }  # fmt: skip


# The layers that design decisions were measured on.
LAYERS = (
    Case("resnet first 7x7 s2", 8, 3, 224, 224, 64, 7, 7, 2, 3),
    Case("resnet 64 3x3 56", 8, 64, 56, 56, 64, 3, 3, 1, 1),
    Case("resnet 128 3x3 28", 8, 128, 28, 28, 128, 3, 3, 1, 1),
    Case("resnet 256 3x3 14", 8, 256, 14, 14, 256, 3, 3, 1, 1),
    Case("resnet 512 3x3 7", 8, 512, 7, 7, 512, 3, 3, 1, 1),
    Case("vgg 64-128 3x3 112", 8, 64, 112, 112, 128, 3, 3, 1, 1),
    Case("resnet 64-256 1x1 56", 8, 64, 56, 56, 256, 1, 1),
    Case("three-layer net 7x7 32", 50, 3, 32, 32, 32, 7, 7, 1, 3),
    Case("lenet first 5x5 28", 64, 1, 28, 28, 6, 5, 5),
    Case("resnet 64 3x3 56 batch 1", 1, 64, 56, 56, 64, 3, 3, 1, 1),
)

# Small problems around every special place of the code: tails of tiles, padding, strides, groups, empty sums.
EDGES = (
    Case("one number", 1, 1, 1, 1, 1, 1, 1),
    Case("one pixel, many channels", 2, 37, 1, 1, 19, 1, 1),
    Case("3x3", 2, 3, 9, 11, 5, 3, 3),
    Case("3x3 same", 2, 3, 9, 11, 5, 3, 3, 1, "same"),
    Case("3x3 same_lower stride 2", 2, 3, 9, 12, 5, 3, 3, 2, "same_lower"),
    Case("even kernel same", 1, 2, 7, 8, 3, 4, 2, 1, "same"),
    Case("1x1", 2, 20, 7, 5, 33, 1, 1),
    Case("1x1 stride 2", 2, 3, 30, 31, 7, 1, 1, 2),
    Case("stride beyond the kernel", 1, 2, 13, 12, 3, 2, 2, 5),
    Case("stride 2 padded", 2, 4, 12, 12, 6, 3, 3, 2, 1),
    Case("unequal strides", 1, 3, 11, 17, 4, 3, 5, (3, 2), ((1, 2), (0, 3))),
    Case("padding beyond the kernel", 1, 2, 5, 6, 3, 3, 3, 1, 4),
    Case("dilated", 1, 8, 20, 20, 17, 3, 3, 1, 2, 2),
    Case("dilated, strided", 2, 3, 19, 18, 4, 3, 2, (2, 3), 1, (3, 2)),
    Case("groups", 2, 6, 10, 9, 9, 3, 3, 1, 1, 1, 3),
    Case("groups, strided, dilated", 2, 4, 14, 14, 4, 2, 2, 2, 0, 3, 2),
    Case("groups of 4, tiles of 8", 2, 24, 9, 17, 24, 3, 3, 1, 1, 1, 6),
    Case("groups of 8, stride 2", 1, 24, 14, 15, 24, 3, 3, 2, 1, 1, 3),
    Case("groups of 2, uneven padding", 1, 14, 8, 12, 14, 2, 4, (3, 2), ((2, 1), (0, 3)), (2, 1), 7),
    Case("groups of 12 and 20", 1, 24, 7, 11, 40, 3, 5, 1, ((1, 1), (2, 2)), (1, 2), 2),
    Case("depthwise", 2, 16, 13, 13, 16, 3, 3, 1, 1, 1, 16),
    Case("depthwise, rows of 7", 2, 9, 9, 7, 9, 3, 3, 1, 1, 1, 9),
    Case("depthwise, two filters each", 1, 5, 9, 9, 10, 3, 3, 2, 1, 1, 5),
    Case("depthwise, tails", 2, 17, 15, 35, 17, 3, 3, 1, ((0, 2), (2, 1)), 1, 17),
    Case("depthwise 5x5 stride 2", 1, 3, 23, 72, 3, 5, 5, 2, 2, 1, 3),
    Case("depthwise stride 3", 1, 2, 20, 55, 4, 4, 3, 3, 1, (1, 2), 2),
    Case("depthwise line", 2, 18, 1, 150, 18, 1, 7, 1, ((0, 0), (12, 0)), (1, 2), 18),
    Case("depthwise line stride 2", 1, 3, 2, 300, 3, 2, 4, (1, 2), ((1, 0), (1, 2)), 1, 3),
    Case("depthwise, many taps", 1, 5, 19, 20, 5, 9, 2, 1, 4, 1, 5),
    Case("one column, strided", 1, 16, 64, 1, 16, 1, 3, (1, 2), ((0, 0), (1, 1))),
    Case("one row, strided", 1, 16, 1, 64, 16, 3, 1, (2, 1), ((1, 1), (0, 0))),
    Case("1xK", 1, 4, 6, 40, 5, 1, 7, 1, ((0, 0), (3, 3))),
    Case("Kx1", 1, 4, 40, 6, 5, 7, 1, 1, ((3, 3), (0, 0))),
    Case("kernel as large as the input", 3, 4, 6, 7, 8, 6, 7),
    Case("first layer", 1, 3, 40, 40, 64, 7, 7, 2, 3),
    Case("lenet second", 3, 6, 14, 14, 16, 5, 5),
    Case("small planes, many filters", 5, 18, 7, 7, 70, 3, 3, 1, 1),
    Case("rows of 15", 1, 5, 3, 17, 15, 3, 3),
    Case("rows of 16", 1, 5, 3, 18, 16, 3, 3),
    Case("rows of 17", 1, 5, 3, 19, 17, 3, 3),
    Case("rows of 47", 1, 2, 4, 49, 47, 3, 3),
    Case("rows of 49", 1, 2, 4, 51, 49, 3, 3),
    Case("rows of 65", 1, 2, 4, 65, 65, 1, 3, 1, "same"),
    Case("long sum", 1, 150, 6, 6, 9, 3, 3, 1, 1),
    Case("rows of 33, 3 channels", 2, 3, 35, 33, 9, 3, 3, 1, 1),
    Case("few channels, stride 2, odd", 2, 3, 17, 35, 17, 5, 3, 2, ((3, 1), (1, 2))),
    Case("few channels, stride 3", 1, 2, 20, 40, 6, 4, 5, 3, 2),
    Case("one filter", 2, 7, 12, 21, 1, 3, 3, 1, 1),
    Case("one filter, strided rows", 3, 18, 2, 23, 1, 2, 4, (2, 1), ((0, 1), (0, 0))),
    Case("no images", 0, 3, 5, 5, 2, 3, 3, 1, 1),
    Case("no filters", 2, 3, 5, 5, 0, 3, 3),
    Case("no channels", 2, 0, 5, 5, 4, 3, 3),
)


def case(name: str) -> Case:
    """The case of that name.

    Raises
    ------
    KeyError : there is none.
    """
    cases = {c.name: c for c in (*LAYERS, *EDGES)}
    if name not in cases:
        raise KeyError(f"no case named {name!r}; names are {list(cases)}")
    return cases[name]
