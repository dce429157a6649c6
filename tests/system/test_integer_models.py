"""Integer models over environments: the folder of another onnxruntime, as `pip install --no-deps --target FOLDER
onnxruntime==1.24.4` makes one, is named by BGAN_OTHER_ONNXRUNTIME."""

import os
import signal

import numpy as np
import pytest

from bgan.clients import SamplingClient
from bgan.serving.models.engine import load_engine
from bgan.trainer.exporting.exporter import export_run
from tests.kit.models import make_run
from tests.kit.servers import ServerProcess, free_port

OTHER = os.environ.get("BGAN_OTHER_ONNXRUNTIME")
COUNT, BATCH, KILLS = 60_000, 500, 4


@pytest.mark.long
@pytest.mark.skipif(OTHER is None, reason="BGAN_OTHER_ONNXRUNTIME names no other onnxruntime")
def test_a_stream_goes_on_at_servers_of_another_onnxruntime(tmp_path, processes):
    run = make_run(tmp_path / "run", network="doubling-cnn", neuron="sbn", shape=(1, 12, 12))
    path = export_run(run, tmp_path / "models", arithmetic="integer").path
    port, started = free_port(), 0

    def start():
        folders = {"PYTHONPATH": os.pathsep.join([OTHER, os.environ.get("PYTHONPATH", "")])}
        return ServerProcess(path.parent, port=port, env=folders if started % 2 else None)

    server, packed, revisions = start(), [], set()
    try:
        with SamplingClient(f"localhost:{port}", timeout_seconds=200) as client:
            for batch in client.sample_binary_images(image_count=COUNT, seed=3, batch_size=BATCH):
                packed.append(batch.packed_images)
                revisions.add(batch.revision)
                if len(packed) % (COUNT // BATCH // (KILLS + 1)) == 0 and started < KILLS:
                    server.stop(signal.SIGKILL)
                    started += 1
                    server = start()
    finally:
        server.stop(signal.SIGKILL)
    engine = load_engine(path)
    assert started == KILLS
    assert revisions == {engine.revision}
    assert np.concatenate(packed).tobytes() == engine.sample(3, 0, COUNT).packed_images
