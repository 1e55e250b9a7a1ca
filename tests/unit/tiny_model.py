"""A network of a few bytes, as Ultralytics would export it: for tests that need no training."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 64  # px
BOX = (32.0, 32.0, 20.0, 30.0)  # x, y, width, height in the square


def write(folder: Path, score: float = 0.9, *, size: int = SIZE) -> Path:
    """Write what a model is made of; whatever the picture, it sees ``BOX`` with that score."""
    folder.mkdir(parents=True, exist_ok=True)
    output = np.zeros((1, 5, 3), np.float32)
    output[0, :, 0] = (*BOX, score)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "one"], ["flat"]),
        helper.make_node("Mul", ["flat", "zero"], ["nothing"]),
        helper.make_node("Add", ["boxes", "nothing"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, 3])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
            numpy_helper.from_array(output, "boxes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "labels.json").write_text('{"0": "person"}')
    (folder / "args.yaml").write_text("imgsz: 64\n")
    (folder / "best.pt").write_bytes(f"weights {score}".encode())
    return folder
