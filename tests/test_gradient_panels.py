"""Every arrangement of the gradient of w as panels, not only the one that is predicted to be the fastest."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import BY_NAME, DTYPES, LAYOUTS, answers, filters, images, lengths, use_tiny_blocks
from tolerances import assert_close

from fastconv import explain_conv2d
from fastconv.algorithms import gradient_panels
from fastconv.algorithms.gradient_panels import GradientPanelsPass, arrangements


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("in_place", (True, False))
@pytest.mark.parametrize("name", BY_NAME)
def test_every_arrangement(name, in_place, layout, dtype, monkeypatch):
    """Columns read where they lie, and filled into panels; blocks of 8 pixels, so that results are added to."""
    case, known = BY_NAME[name], answers(name)
    use_tiny_blocks(monkeypatch.setattr)
    monkeypatch.setattr(gradient_panels, "_IN_PLACE_BYTES", 2**30 if in_place else 0)
    x, dout = (images(array, layout).astype(dtype) for array in (known.x, known.dout))
    w = filters(known.w, layout)
    problem = explain_conv2d(x.shape, w.shape, layout=layout, dtype=dtype, **case.options).problem
    if problem.empty:
        pytest.skip("empty problems reach no algorithm")
    expected = filters(known.backward(False, None)[1], layout)
    for arrangement in arrangements(problem):
        dw = np.full(w.shape, np.nan, dtype)
        GradientPanelsPass(problem, 2, arrangement).run(x, dout, dw)
        assert_close(dw, expected, lengths(case)[2])
