"""Trackers, each with its real library, and nothing of a network."""

import importlib.util
import json
import os
import struct
import subprocess
import sys

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from bgan.trainer import Callback, CallbackError, ConfigError, TensorBoard, build_trackers
from tests.conftest import ROOT
from tests.kit.cli import bgan, error_line
from tests.kit.models import read_metrics
from tests.kit.training import newest_digest, train_on_noise


class Failing(Callback):
    def on_step(self, step, losses):
        raise ValueError("no")


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


def _wandb_records(folder):
    """The records of the newest offline run: in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    path = max(folder.glob("wandb/offline-run-*/*.wandb"))
    content, position, parts = path.read_bytes(), 7, []
    while position < len(content):
        if 32768 - position % 32768 < 7:  # the end of a block has no room for a header
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


@pytest.mark.usefixtures("processes")
def test_wandb_offline_has_all_of_a_run_and_its_resumption(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="not installed: pip install 'bgan[wandb]'")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": tmp_path, "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(name, str(value))
    run = train_on_noise(tmp_path / "run", *build_trackers(["wandb"]), evaluate_every=2)
    wandb.teardown()  # its process writes the last of it after the run is finished
    records = list(_wandb_records(run.folder))
    (begun,) = [record.run for record in records if record.HasField("run")]
    assert (begun.display_name, begun.project) == ("run", "bgan")
    assert {item.key: json.loads(item.value_json) for item in begun.config.update}["batch_size"] == 16
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    logged = read_metrics(run.folder)
    assert [(row["step"], row["generator"]) for row in rows if "generator" in row] == [
        (record["step"], record["generator"]) for record in logged if "evaluation" not in record
    ]
    assert [row["step"] for row in rows if "samples.path" in row] == [0, 3, 6]
    assert [sum(row["preactivations.values"]) for row in rows if "preactivations.values" in row] == [64 * 96] * 3
    (figures,) = [row for row in rows if "evaluation/unique_share" in row]
    assert figures["evaluation/unique_share"] == logged[-1]["evaluation"]["unique_share"]

    before = json.loads((run.folder / "trackers.json").read_text())
    train_on_noise(tmp_path / "run", *build_trackers(["wandb"]), epochs=3)
    wandb.teardown()
    (resumed,) = [record.run for record in _wandb_records(run.folder) if record.HasField("run")]
    assert resumed.run_id == begun.run_id == before["wandb"]
    assert len(list(run.folder.glob("wandb/offline-run-*"))) == 2


@pytest.mark.usefixtures("processes")  # it asks `uname`
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what it uses of sqlalchemy
def test_mlflow_has_all_of_a_run_and_its_resumption(tmp_path, monkeypatch):
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason="not installed: pip install 'bgan[mlflow]'")
    monkeypatch.chdir(tmp_path)  # where its files of artifacts lie
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = train_on_noise(tmp_path / "run", *build_trackers(["mlflow"]), evaluate_every=2)
    train_on_noise(tmp_path / "run", *build_trackers(["mlflow"]), epochs=3)
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("bgan")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["batch_size"] == "16"
    logged = read_metrics(run.folder)
    assert [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, "generator")] == [
        (record["step"], record["generator"]) for record in logged if "evaluation" not in record
    ]
    (figures,) = [record["evaluation"] for record in logged if "evaluation" in record]
    assert found.data.metrics["evaluation/unique_share"] == figures["unique_share"]
    names = [each.path for each in client.list_artifacts(found.info.run_id, "samples")]
    assert names == [f"samples/step_{step:08d}.png" for step in (0, 3, 6, 9)]

    with pytest.raises(CallbackError):
        train_on_noise(tmp_path / "other", *build_trackers(["mlflow"]), Failing())
    statuses = {each.info.run_name: each.info.status for each in client.search_runs([experiment.experiment_id])}
    assert statuses == {"run": "FINISHED", "other": "FAILED"}


@pytest.mark.usefixtures("processes")
def test_trackio_has_all_of_a_run_and_its_resumption(tmp_path):
    """In a process of its own: its folder is one for a whole process."""
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("not installed: pip install 'bgan[trackio]'")
    code = f"""if True:
        import json, pathlib
        from bgan.trainer import build_trackers
        from tests.kit.training import train_on_noise
        for epochs in (2, 3):
            train_on_noise(pathlib.Path({str(tmp_path)!r}) / "run", *build_trackers(["trackio"]), epochs=epochs)
        from trackio.sqlite_storage import SQLiteStorage
        print("rows", json.dumps([SQLiteStorage.get_runs("bgan"), SQLiteStorage.get_logs("bgan", "run")]))
    """
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("rows ")]
    runs, rows = json.loads(line.removeprefix("rows "))
    assert runs == ["run"]
    logged = read_metrics(tmp_path / "run")
    assert [(row["step"], row["generator"]) for row in rows if "generator" in row] == [
        (record["step"], record["generator"]) for record in logged
    ]
    assert [row["step"] for row in rows if "samples" in row] == [0, 3, 6, 9]
    assert [row["step"] for row in rows if "preactivations" in row] == [0, 3, 6, 9]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_an_extra_that_is_missing_is_told_with_the_command_that_installs_it(name, monkeypatch, tmp_path):
    package = "sqlalchemy" if name == "mlflow" else name
    monkeypatch.setitem(sys.modules, package, None)  # as if it was not installed
    line = error_line(bgan("train", "--dataset", "digits", "--tracker", name, "--runs-dir", tmp_path))
    assert line == f"bgan: the tracker {name} needs the package '{package}': pip install 'bgan[{name}]'"
    assert list(tmp_path.iterdir()) == []


def test_trackers_are_chosen_by_name(tmp_path):
    assert [type(each).__name__ for each in build_trackers(["tensorboard", "tensorboard"])] == ["TensorBoard"]
    assert build_trackers(["none"]) == []
    for names in (["aim"], ["tensorboard", "none"]):
        with pytest.raises(
            ConfigError, match="choose among tensorboard, wandb, mlflow, trackio, or none and no other"
        ):
            build_trackers(names)
