"""Runs a model in one runtime on noise from stdin; needs numpy and that runtime alone.

The argument is JSON: what runs the file, and its inputs' types and shapes. stdout gets a line that says
what runs,
then, for each batch on stdin (its rows as uint32, and each input's values), the packed bits.
"""

import json
import os
import sys

import numpy as np


def onnxruntime(path, settings):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if level := settings.get("optimizations"):
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return runtime.__version__, lambda inputs: session.run(["images"], inputs)[0]


def openvino(path, settings):
    import openvino as runtime

    model = runtime.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1, **settings})
    return runtime.__version__, lambda inputs: model(inputs)["images"]


def onnx(path, settings):
    """What the operators mean, in plain numpy."""
    import onnx as runtime
    from onnx.reference import ReferenceEvaluator, op_run

    class GatherElements(op_run.OpRun):  # onnx's own fails for tables of more than 64 rows
        def _run(self, data, indices, axis):
            return (np.take_along_axis(data, indices, axis),)

    evaluator = ReferenceEvaluator(path, new_ops=[GatherElements])
    return runtime.__version__, lambda inputs: evaluator.run(["images"], inputs)[0]


def main():
    task = json.loads(sys.argv[1])
    runtime = {"onnxruntime": onnxruntime, "openvino": openvino, "onnx": onnx}[task["package"]]
    version, run = runtime(task["path"], task["settings"])
    print(task["package"], version, "numpy", np.__version__, flush=True)
    while header := sys.stdin.buffer.read(4):
        rows = int.from_bytes(header, "little")
        inputs = {}
        for name, (dtype, *shape) in task["inputs"].items():
            content = sys.stdin.buffer.read(rows * int(np.prod(shape)) * np.dtype(dtype).itemsize)
            inputs[name] = np.frombuffer(content, dtype).reshape(rows, *shape)
        images = np.asarray(run(inputs))
        assert images.dtype == np.uint8, images.dtype
        sys.stdout.buffer.write(np.packbits(images.reshape(rows, -1), axis=1).tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
