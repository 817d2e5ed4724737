"""Convolution by fastconv, PyTorch and ONNX Runtime: forward, gradient of x, gradient of w."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx_runtime
import ours
import torch
from contest import Contender, Contest, Entry, Selection, pick
from layers import GROUPS
from ours import PASSES, Arrays

from fastconv.catalogue import Case

MEMORY_FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def entries() -> list[Entry]:
    return [
        Entry(group, case.name, partial(contests, group, case)) for group, cases in GROUPS.items() for case in cases
    ]


def contests(group: str, case: Case, selection: Selection) -> Iterator[Contest]:
    """The passes of one layer."""
    numbers = ours.arrays(case, selection.dtype)
    mine = {
        f"{layout} {algorithm}": ours.passes(case, numbers, layout, algorithm)
        for algorithm in selection.algorithms
        for layout in selection.layouts
    }
    theirs = torch_configurations(case, numbers)
    for direction in pick(PASSES, selection):
        peers = {name: passes[direction] for name, passes in theirs.items()}
        if direction == "forward" and selection.dtype == "float32":
            peers[onnx_runtime.NAME] = _onnx_forward(case, numbers)
        columns = {column: passes[direction] for column, passes in mine.items()}
        yield Contest(group, case.name, direction, selection.dtype, 1e-9 * ours.flops(case), columns, peers)


def torch_configurations(case: Case, numbers: Arrays) -> dict[str, dict[str, Contender]]:
    """Both memory formats, without autograd and as in training."""
    return {
        f"torch {layout}{suffix}": passes(case, numbers, layout)
        for suffix, passes in (("", _torch_passes), (" autograd", _torch_training_passes))
        for layout in MEMORY_FORMATS
    }


def read_tensor(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _tensors(numbers: Arrays, layout: str) -> tuple[torch.Tensor, ...]:
    x, w, dout = (
        torch.from_numpy(a).contiguous(memory_format=MEMORY_FORMATS[layout])
        for a in (numbers.x, numbers.w, numbers.dout)
    )
    return x, w, torch.from_numpy(numbers.b), dout


def _torch_passes(case: Case, numbers: Arrays, layout: str) -> dict[str, Contender]:
    """Under `torch.no_grad()`, which the caller sets; gradients by the operator that autograd calls."""
    x, w, b, dout = _tensors(numbers, layout)
    stride, padding, dilation = (list(_pair(v)) for v in (case.stride, case.padding, case.dilation))

    def backward(*mask: bool) -> tuple[torch.Tensor, ...]:
        return torch.ops.aten.convolution_backward(
            dout, x, w, None, stride, padding, dilation, False, [0, 0], case.groups, list(mask)
        )

    return {
        "forward": Contender(lambda: torch.conv2d(x, w, b, stride, padding, dilation, case.groups), read_tensor),
        "dx": Contender(lambda: backward(True, False, False)[0], read_tensor),
        "dw": Contender(lambda: backward(False, True, False)[1], read_tensor),
    }


def _torch_training_passes(case: Case, numbers: Arrays, layout: str) -> dict[str, Contender]:
    """With a graph: forward records it, gradients walk it."""
    x, w, b, dout = _tensors(numbers, layout)
    stride, padding, dilation = (list(_pair(v)) for v in (case.stride, case.padding, case.dilation))
    trained = [tensor.detach().requires_grad_() for tensor in (x, w, b)]

    def forward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return torch.conv2d(x, w, b, stride, padding, dilation, case.groups)

    def gradient(index: int) -> Contender:
        inputs = [x, w, b]
        inputs[index] = trained[index]
        out = forward(*inputs)
        return Contender(lambda: torch.autograd.grad(out, inputs[index], dout, retain_graph=True)[0], read_tensor)

    return {"forward": Contender(lambda: forward(*trained), read_tensor), "dx": gradient(0), "dw": gradient(1)}


def _onnx_forward(case: Case, numbers: Arrays) -> Contender:
    return onnx_runtime.operator(
        "Conv", numbers.x, {"w": numbers.w, "b": numbers.b}, strides=_pair(case.stride), pads=_pair(case.padding) * 2,
        dilations=_pair(case.dilation), group=case.groups,
    )  # fmt: skip


def _pair(value: object) -> tuple[int, int]:
    """The peers have no padding per side and no names in common: these layers need neither."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return value
    raise ValueError(f"the peers' convolutions take an integer or a pair, got {value!r}")
