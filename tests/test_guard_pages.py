"""No kernel reads or writes outside its arrays: everything it is given lies against an unreadable page.

`guard_child.py` does the work in processes of their own, since a stray access ends the process.
"""

from __future__ import annotations

import sys

import children
import pytest
from conv_cases import DTYPES
from guarded import SIDES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")


# Nothing about the start of an array depends on the dtype; ends differ by their masks.
@pytest.mark.parametrize(("side", "dtype"), [("start", "float32"), *(("end", dtype) for dtype in DTYPES)])
@pytest.mark.parametrize("section", ["convolutions", "small", "others"])
def test_nothing_outside_is_touched(section, side, dtype):
    child = children.run(children.TESTS / "guard_child.py", section, side, dtype)
    last = child.stdout.splitlines()[-1:]
    assert child.returncode == 0, f"exit code {child.returncode} in {last}\n{child.stderr[-4000:]}"
    assert "done, " in last[0] and "done, 0" not in last[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", SIDES)
def test_one_element_too_many_is_noticed(side, dtype):
    child = children.run(children.TESTS / "guard_child.py", "one_too_many", side, dtype)
    assert child.stdout.splitlines() == ["inside"]
    assert child.returncode < 0  # ended by a signal
