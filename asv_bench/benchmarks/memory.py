"""Peak memory of a process that runs one large layer, and the scratch memory that a plan asks for."""

from __future__ import annotations

from fastconv import conv2d_backward, conv2d_forward, explain_conv2d

from .common import CASES, LAYER_NAMES, LAYOUTS, normal

LARGEST = "vgg 64-128 3x3 112"


def _run_largest(layout: str) -> None:
    case = CASES[LARGEST]
    x, w = normal(case.x_shape(layout), "float32"), normal(case.w_shape(layout), "float32", seed=1)
    out, cache = conv2d_forward(x, w, layout=layout, **case.options)
    conv2d_backward(out, cache)


class PeakMemory:
    timeout = 300
    params = (LAYOUTS,)
    param_names = ("layout",)

    def setup_cache(self) -> None:
        """Compile in a process of its own: the compiler's memory is no part of the figure."""
        for layout in LAYOUTS:
            _run_largest(layout)

    def peakmem_forward_and_backward(self, layout: str) -> None:
        _run_largest(layout)


class Workspace:
    params = (LAYER_NAMES, LAYOUTS)
    param_names = ("layer", "layout")
    unit = "bytes"

    def track_all_passes(self, layer: str, layout: str) -> int:
        case = CASES[layer]
        explanation = explain_conv2d(case.x_shape(layout), case.w_shape(layout), layout=layout, **case.options)
        return sum(explanation.workspace.values())
