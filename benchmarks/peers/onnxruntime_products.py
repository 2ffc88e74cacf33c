"""The kernels' peer in its own process: onnxruntime's MatMulNBits.

Run as `python -m benchmarks.peers.onnxruntime_products THREADS`, with any interpreter that has onnxruntime, onnx and
numpy; it needs nothing of qwen2_audio. 4 and 8 bits with a scale a block, activations in 8 bits (accuracy_level 4).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from ..harness.worker_loop import serve, settle, stdout_for_replies

Measured = dict[str, Any]


class Session:
    """The orders it knows, as in `kernels.worker`."""

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self._runtime, self._threads = onnxruntime, threads
        self._sessions: dict[int, Any] = {}  # by copies of the weight
        self._inputs, self._copies = 0, 1

    def about(self) -> Measured:
        return {"peer": f"onnxruntime {self._runtime.__version__}"}

    def prepare(self, bits: int, group: int, inputs: int, outputs: int, working_set: int) -> Measured:
        nbytes = outputs * inputs * bits // 8 + outputs * (inputs // group) * 4
        self._inputs, self._copies = inputs, max(1, -(-working_set // nbytes))
        self._sessions = {
            copies: self._open(_model(bits, group, inputs, outputs, copies)) for copies in {1, self._copies}
        }
        return {"nbytes": nbytes}

    def time(self, rows: int, calls: int) -> Measured:
        """Seconds of a product with `rows` rows: the mean of `calls` runs of one product. 0: one run of a graph with a
        product for each copy of the weight, so that no time is spent between them."""
        x = {"x": np.random.default_rng(0).standard_normal((rows, self._inputs)).astype(np.float32)}
        session = self._sessions[1 if calls else self._copies]
        settle()
        start = time.perf_counter()
        for _ in range(calls or 1):
            session.run(None, x)
        return {"value": (time.perf_counter() - start) / (calls or self._copies)}

    def _open(self, model: bytes) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        return self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(bits: int, group: int, inputs: int, outputs: int, copies: int) -> bytes:
    """A graph of `copies` products of one input, each with random weights of its own."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    blocks = -(-inputs // group)
    codes = random.integers(0, 256, (outputs, blocks, group * bits // 8), dtype=np.uint8)
    scales = np.full((outputs, blocks), 0.01, np.float32)
    weights = []  # no two alike: what is alike could be kept once
    for i in range(copies):
        weights.append(numpy_helper.from_array(codes ^ np.uint8(i), f"codes_y{i}"))
        weights.append(numpy_helper.from_array(scales + np.float32(1e-4 * i), f"scales_y{i}"))
    names = [f"y{i}" for i in range(copies)]
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", f"codes_{name}", f"scales_{name}"],
            [name],
            domain="com.microsoft",
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=group,
            accuracy_level=4,
        )
        for name in names
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", outputs]) for name in names],
        weights,
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()  # type: ignore[no-any-return]


def main() -> None:
    replies = stdout_for_replies()
    serve(Session(int(sys.argv[1])), sys.stdin, replies)


if __name__ == "__main__":
    main()
