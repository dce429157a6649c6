"""Trackers, each with its real library, and nothing of a network."""

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from bgan.trainer.training.trackers.tensorboard import TensorBoard
from tests.kit.models import read_metrics
from tests.kit.training import newest_digest, train_on_noise


def _events(run):
    return EventAccumulator(str(run.events), size_guidance={"images": 0, "histograms": 0, "scalars": 0}).Reload()


def test_tensorboard_has_losses_grids_histograms_evaluations_and_settings(tmp_path):
    run = train_on_noise(tmp_path / "run", TensorBoard(), evaluate_every=2)
    events, records = _events(run), read_metrics(run.folder)
    for name in ("discriminator", "generator", "penalty", "slope"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [
            (record["step"], pytest.approx(record[name])) for record in records if "evaluation" not in record
        ]
    figures = records[-1]["evaluation"]
    assert {tag for tag in events.Tags()["scalars"] if "/" in tag} == {f"evaluation/{name}" for name in figures}
    (event,) = events.Scalars("evaluation/unique_share")
    assert (event.step, event.value) == (6, pytest.approx(figures["unique_share"]))

    assert [event.step for event in events.Images("samples")] == [0, 3, 6]
    with Image.open(run.samples / "step_00000006.png") as picture:
        shown = events.Images("samples")[-1]
        assert (shown.width, shown.height) == picture.size

    for event in events.Histograms("preactivations"):
        value = event.histogram_value
        assert value.num == 64 * 8 * 12
        assert 0 <= value.min < value.max <= 1
        assert all(0 <= limit <= 1.001 for limit in value.bucket_limit)

    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["batch_size"].number_value == 16
    assert settings["neuron"].string_value == "dbn"
    assert "clusters" not in settings


def test_a_resumed_run_has_each_event_once(tmp_path):
    run = train_on_noise(tmp_path / "run", TensorBoard(), epochs=3)
    newest = run.checkpoints / "step_00000009"
    for suffix in (".json", ".safetensors"):  # as if it was broken off before it was written
        newest.with_suffix(suffix).unlink()
    run = train_on_noise(tmp_path / "run", TensorBoard(), epochs=3)
    events = _events(run)
    assert [event.step for event in events.Scalars("generator")] == [3, 6, 9]
    assert [event.step for event in events.Images("samples")] == [0, 3, 6, 9]
    assert newest_digest(run) == newest_digest(train_on_noise(tmp_path / "without", epochs=3))
