"""The same models behind Triton, through pytriton; the Python of .tools/triton runs it.

    .tools/triton/bin/python -m tests.benchmarks.triton_server MODELS FOLDER

The inference function runs onnxruntime on the latents (and uniforms) that a request brings ready, and packs the
images; Triton batches calls that wait. Writes requests for `load` into FOLDER, MODEL-1.bin of one image and
MODEL-1024.bin, and prints {"port": ...} when it is ready.
"""

import json
import os
import signal
import socket
import struct
import sys
import sysconfig
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import service_pb2

_DISTINCT_REQUESTS = {1: 2000, 1024: 4}  # by images in each
# Triton's model process embeds an early 3.11, whose RLock lacks what the library of a later 3.11 asks of it. It
# ignores PYTHONPATH, so this goes where its Python looks for it: into the environment that this script runs in.
_SITE = """
import threading
from multiprocessing import resource_tracker

if not hasattr(threading.RLock(), "_recursion_count"):
    resource_tracker._resource_tracker._lock = threading._PyRLock()
"""


def main() -> None:
    """Serve until SIGTERM."""
    models, folder = map(Path, sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGINT alone makes pytriton clean up after itself
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Triton's own log goes to stdout
    Path(sysconfig.get_path("purelib"), "sitecustomize.py").write_text(_SITE)
    port, other = _free_ports(2)
    config = TritonConfig(
        grpc_address="127.0.0.1", http_address="127.0.0.1", grpc_port=port, http_port=other, allow_metrics=False
    )
    with Triton(config=config, workspace=folder / "workspace") as triton:
        for path in models.glob("*.onnx"):
            session = onnxruntime.InferenceSession(path)
            _write_requests(path.stem, session, folder)
            _bind(triton, path.stem, session)
        triton.run()
        print(json.dumps({"port": port}), file=ready, flush=True)
        triton.serve()


def _bind(triton, name, session):
    @batch
    def infer(**feeds):
        (images,) = session.run(["images"], feeds)
        return [np.packbits(images.reshape(len(images), -1), axis=1)]

    triton.bind(
        model_name=name,
        infer_func=infer,
        inputs=[Tensor(name=each.name, dtype=np.float32, shape=each.shape[1:]) for each in session.get_inputs()],
        outputs=[Tensor(name="packed_images", dtype=np.uint8, shape=(-1,))],
        config=ModelConfig(max_batch_size=max(_DISTINCT_REQUESTS), batcher=DynamicBatcher()),
    )


def _write_requests(name, session, folder):
    random = np.random.default_rng(1)
    for count, distinct in _DISTINCT_REQUESTS.items():
        requests = (_request(name, session, random, count) for _ in range(distinct))
        (folder / f"{name}-{count}.bin").write_bytes(b"".join(requests))


def _request(name, session, random, count):
    request = service_pb2.ModelInferRequest(model_name=name)
    for each in session.get_inputs():
        draw = random.standard_normal if each.name == "latents" else random.random
        values = draw((count, *each.shape[1:]), dtype=np.float32)
        request.inputs.add(name=each.name, datatype="FP32", shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
    content = request.SerializeToString()
    return struct.pack("<I", len(content)) + content


def _free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


if __name__ == "__main__":
    main()
