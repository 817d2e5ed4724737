"""A few calls on the vector units that this machine can imitate: AVX2, and 128 bits without multiply-add.

The whole suite runs on them too:

    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma pytest
    NUMBA_CPU_NAME=generic pytest
"""

from __future__ import annotations

import platform

import children
import pytest

from fastconv._kernels.isa import MACHINE

CODE = """
import numpy as np
from conv_cases import BY_NAME, LAYOUTS, answers, filters, images, lengths
from tolerances import assert_close
import fastconv
from fastconv._kernels.isa import MACHINE

assert (MACHINE.name, MACHINE.fma) == {expected}, MACHINE
for name in ("3x3 same", "dilated, strided", "depthwise", "first layer", "rows of 17"):
    case, known, length = BY_NAME[name], answers(name), lengths(BY_NAME[name])
    for layout in LAYOUTS:
        x, w = images(known.x, layout), filters(known.w, layout)
        for algorithm in fastconv.conv2d_algorithms():
            options = {{"layout": layout, "algorithm": algorithm, "activation": "relu", **case.options}}
            try:
                out, cache = fastconv.conv2d_forward(x, w, known.b, **options)
            except ValueError as error:
                assert "cannot run this problem" in str(error)
                continue
            accuracy = "auto" if algorithm in ("direct", "im2col", "depthwise") else "fast"
            assert_close(out, images(known.forward(True, "relu"), layout), length[0], accuracy)
            expected = known.backward(True, "relu")
            dx, dw, db = fastconv.conv2d_backward(images(known.dout, layout), cache)
            assert_close(dx, images(expected[0], layout), length[1], accuracy)
            assert_close(dw, filters(expected[1], layout), length[2], accuracy)
            assert_close(db, expected[2], length[3])

x = answers("dilated").x[:, :, :20, :20]
blocks = x.reshape(*x.shape[:2], 10, 2, 10, 2)
np.testing.assert_array_equal(fastconv.max_pool2d(x, 2), blocks.max(axis=(3, 5)))
np.testing.assert_allclose(fastconv.avg_pool2d(x, 2), blocks.mean(axis=(3, 5)), rtol=1e-5, atol=1e-6)
print("done")
"""

MACHINES = {
    "AVX2": ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}, ("AVX2", True)),
    "no FMA": ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, ("128-bit", False)),
}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="imitates x86 machines")
@pytest.mark.parametrize("name", MACHINES)
def test_results_are_right_on(name):
    environment, expected = MACHINES[name]
    if name == "AVX2" and "avx2" not in host_features():
        pytest.skip("this machine has no AVX2")
    if (MACHINE.name, MACHINE.fma) == expected:
        pytest.skip("this is such a machine: all other tests run on it")
    # One thread: the drivers of several compile for as long as all else and hold no vector code.
    environment = {**environment, "NUMBA_NUM_THREADS": "1"}
    assert children.output_of("-c", CODE.format(expected=expected), **environment) == "done\n"


def host_features() -> set[str]:
    import llvmlite.binding as llvm

    return {feature for feature, present in llvm.get_host_cpu_features().items() if present}
