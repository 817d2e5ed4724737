"""Stanford's CS231n, assignment 2, by the course's own names: layers, networks, `Solver`, gradient checks.

The modules are named as there, so that a notebook needs another first name in its imports and nothing else:
`from fastconv.compat.cs231n.layers import *`. All names are reachable from here, too. `docs/cs231n.md` says what is
different.

>>> x, w, b = np.ones((2, 3, 4, 4)), np.ones((3, 3, 4, 4)), np.zeros(3)
>>> out, cache = conv_forward_fast(x, w, b, {"stride": 2, "pad": 1})
>>> dx, dw, db = conv_backward_fast(np.ones_like(out), cache)
>>> out.shape, db.tolist()
((2, 3, 2, 2), [8.0, 8.0, 8.0])
"""

from __future__ import annotations

import numpy as np

from fastconv.compat.cs231n import classifiers
from fastconv.compat.cs231n.classifiers.cnn import *
from fastconv.compat.cs231n.data_utils import *
from fastconv.compat.cs231n.fast_layers import *
from fastconv.compat.cs231n.gradient_check import *
from fastconv.compat.cs231n.layer_utils import *
from fastconv.compat.cs231n.layers import *
from fastconv.compat.cs231n.optim import *
from fastconv.compat.cs231n.solver import *
from fastconv.compat.cs231n.vis_utils import *
