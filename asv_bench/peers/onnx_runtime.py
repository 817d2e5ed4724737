"""ONNX Runtime as a peer: a model of one operator, with constant weights, on as many threads as fastconv."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from contest import Contender
from onnx import TensorProto, helper, numpy_helper

from fastconv import runtime

NAME = "onnxruntime"
_OPSET, _IR_VERSION = 17, 8  # old enough for every ONNX Runtime with wheels for this Python


def operator(kind: str, x: np.ndarray, constants: dict[str, np.ndarray], **attributes: Any) -> Contender:
    """Run `kind` on float32 x; `constants` are its further inputs, in order."""
    node = helper.make_node(kind, ["x", *constants], ["out"], **attributes)
    graph = helper.make_graph(
        [node],
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * x.ndim)],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x}
    return Contender(lambda: session.run(None, feed)[0], np.asarray)
