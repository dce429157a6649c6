"""What the commands print of servers, in any width, and how long they wait."""

import json
import signal
import subprocess

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from bgan.clients import SamplingClient, ServerOverloadedError
from bgan.clients._text import printable
from bgan.clients.cli.sample import _patient_batches
from bgan.v1 import model_pb2, sampling_pb2
from tests.kit.cli import BGAN, bgan, bgan_process, error_line
from tests.kit.liars import LIMITS, abort, lying_server, responses, served_model
from tests.kit.waiting import eventually

EVIL = "\x1b]0;owned\x07\x1b[2J\nbgan: forged [/nothing] [red]:smile:\u202e"
LONG = "a-name-of-some-seventy-signs-as-bgan-train-makes-them-of-the-data-and-date"


@pytest.fixture
def liar():
    with lying_server() as server:
        yield server


def listed(*served, failures=()):
    return sampling_pb2.ListModelsResponse(models=served, limits=LIMITS, failures=failures)


@pytest.mark.parametrize("width", ["200", "80", "20", "0", "-5", "many"])
def test_names_stand_whole_on_a_line_in_any_width(liar, width):
    liar.models = listed(served_model(name=LONG, dataset="digits" * 9))
    result = bgan("models", "--server", liar.target, env={"COLUMNS": width})
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if LONG in line]
    assert line.startswith(f"*  {LONG}  ")


@pytest.mark.parametrize("width", [80, 20])
def test_a_terminal_that_is_too_narrow_gets_a_paragraph_a_model(liar, width):
    liar.models = listed(served_model(name=LONG, dataset="digits" * 9))
    result = bgan(
        "models", "--server", liar.target, env={"COLUMNS": str(width), "FORCE_COLOR": "1", "NO_COLOR": ""}
    )
    facts = "neuron deterministic, network mlp, arithmetic float, shape 1x2x3, data digits"
    assert f"* {LONG}\n    {facts}" in result.stdout


def test_what_decides_the_bits_of_a_model_is_shown(liar):
    served = [served_model(name="floats"), served_model(name="whole", arithmetic=model_pb2.ARITHMETIC_INTEGER)]
    served[1].is_default = False
    liar.models = listed(*served)
    liar.model = sampling_pb2.GetModelResponse(model=served[1], limits=LIMITS)
    with SamplingClient(liar.target) as client:
        assert [info.arithmetic for info in client.list_models()] == ["float", "integer"]
        assert client.get_model("whole").arithmetic == "integer"
    heading, *lines = bgan("models", "--server", liar.target).stdout.splitlines()
    place = heading.index("arithmetic")
    assert [line[place:].split()[0] for line in lines] == ["float", "integer"]


def test_how_many_parts_of_a_model_run_is_shown(liar):
    gates = model_pb2.Gates(count=8, rate=0.25, neuron=model_pb2.NEURON_STOCHASTIC, mean_active_share=0.28125)
    served = [served_model(name="dense"), served_model(name="gated", gates=gates)]
    served[1].is_default = False
    liar.models = listed(*served)
    liar.model = sampling_pb2.GetModelResponse(model=served[1], limits=LIMITS)
    with SamplingClient(liar.target) as client:
        dense, gated = client.list_models()
        assert (dense.part_count, dense.mean_active_share) == (0, None)
        assert (gated.part_count, gated.mean_active_share) == (8, 0.28125)
        assert client.get_model("gated") == gated
        assert "8 gates" in repr(gated)
    heading, *lines = bgan("models", "--server", liar.target).stdout.splitlines()
    place = heading.index("active parts")
    assert [line[place:].startswith(cell) for line, cell in zip(lines, (" ", "2.25 of 8  "), strict=True)] == [
        True
    ] * 2


def test_errors_are_shown_in_no_width():
    assert "No such option" in bgan_process("models", "--nix", env={"COLUMNS": "0"}).stderr


def test_nothing_of_a_server_commands_a_terminal_or_forges_a_line(liar, tmp_path):
    failures = [sampling_pb2.ModelFailure(model=EVIL, reason=EVIL)]
    liar.models = listed(served_model(name=EVIL, dataset=EVIL, network=EVIL), failures=failures)
    liar.model = sampling_pb2.GetModelResponse(model=served_model(name=EVIL, classes=[EVIL]), limits=LIMITS)
    sample = ("sample", "--server", liar.target, "-n", 4, "--overwrite", "-o", tmp_path / "x.npz")
    outputs = [bgan("models", "--server", liar.target), bgan(*sample, "--label", "x")]
    liar.tell = lambda request, context: (each for each in map(named_evil, responses(request)))
    outputs.append(bgan(*sample))
    liar.tell = lambda request, context: context.abort(grpc.StatusCode.NOT_FOUND, EVIL)
    outputs.append(bgan(*sample))
    assert [result.returncode for result in outputs] == [0, 2, 0, 1]
    for result in outputs:
        text = result.stdout + result.stderr
        assert "owned" in text
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert not any(line.startswith("bgan: forged") for line in text.splitlines())
        assert "[/nothing] [red]:smile:" in text


def named_evil(response):
    response.model = EVIL
    return response


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é 漢", "plain é 漢"), ("a\x1b[2J\n\u202e", "a\\x1b[2J\\n\\u202e"), ("x" * 400, "x" * 300 + "...")],
)
def test_printable(text, shown):
    assert printable(text) == shown


def quota(liar, *, images, seconds):
    """The server's images of a minute are spent after so many of each call."""

    def tell(request, context):
        for response in responses(request):
            if response.first_index - request.first_index >= images:
                wait = duration_pb2.Duration(nanos=round(seconds * 1e9))
                abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error_details_pb2.RetryInfo(retry_delay=wait))
            yield response

    liar.tell = tell


REQUEST = {"image_count": 20, "first_index": 3, "seed": None}


def test_a_command_waits_for_a_quota_beyond_its_timeout_and_keeps_what_it_has(liar, caplog):
    quota(liar, images=8, seconds=0.5)
    with SamplingClient(liar.target, timeout_seconds=0.2) as client:
        batches = list(_patient_batches(client, REQUEST))
    assert [batch.first_index for batch in batches] == [3, 7, 11, 15, 19]
    assert [record.args[1] for record in caplog.records if "going on from image" in record.getMessage()] == [
        11,
        19,
    ]


def test_a_command_does_not_wait_for_what_never_comes(liar):
    quota(liar, images=0, seconds=0.3)
    with SamplingClient(liar.target, timeout_seconds=0.2) as client, pytest.raises(ServerOverloadedError):
        list(_patient_batches(client, REQUEST))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_resumes(running, tmp_path, number):
    arguments = (
        "sample",
        "--server",
        running.target,
        "-n",
        "20000",
        "--seed",
        "4",
        "--batch-size",
        "1",
        "-o",
        "x.npz",
    )
    process = subprocess.Popen([BGAN, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "x.npz.partial"
    eventually(lambda: process.poll() is not None or (partial.exists() and partial.stat().st_size))
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert f"bgan: {number.name}: stopped and saved at image " in said
    assert said.rstrip().endswith(" of 20,000; the same command resumes")
    assert not (tmp_path / "x.npz").exists()
    rows = json.loads((tmp_path / "x.npz.partial.json").read_text())["rows"]
    resumed = bgan(*arguments[:-4], "-o", tmp_path / "x.npz")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming at image {rows:,} of " in resumed.stderr
    assert resumed.stdout == f"{tmp_path / 'x.npz'}\n"
    assert bgan(*arguments[:-4], "-o", tmp_path / "y.npz").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz", "y.npz"]
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_images_that_came_before_a_failure_are_kept(liar, tmp_path):
    quota(liar, images=8, seconds=0.9)
    options = ("--server", liar.target, "-n", 20, "--seed", 5, "-o", tmp_path / "x.npy")
    line = error_line(bgan("sample", *options, "--timeout", 0.5))
    assert line.endswith("; 8 of 20 images are kept, and the same command resumes")
    liar.tell = lambda request, context: responses(request)
    assert bgan("sample", *options).returncode == 0
    assert len(np.load(tmp_path / "x.npy")) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    line = error_line(bgan("sample", *options))
    assert line.endswith("x.npy exists; --overwrite replaces it")
    assert bgan("sample", *options, "--overwrite").returncode == 0


def test_a_timeout_that_is_given_holds(liar, tmp_path):
    quota(liar, images=8, seconds=0.9)
    options = ("--server", liar.target, "-n", 20, "--timeout", 0.5, "-o", tmp_path / "x.npy")
    assert "of 20 images are kept" in error_line(bgan("sample", *options))


def test_a_revision_that_is_gone_says_how_to_start_again(liar, tmp_path):
    quota(liar, images=8, seconds=9)
    options = ("sample", "--server", liar.target, "-n", 20, "--seed", 5, "-o", tmp_path / "x.npy")
    error_line(bgan(*options, "--timeout", 0.5))
    known = {"model": "m", "revision": "new", "wanted_revision": "old"}
    gone = error_details_pb2.ErrorInfo(reason="REVISION_NOT_SERVED", metadata=known)
    liar.tell = lambda request, context: (
        abort(context, grpc.StatusCode.FAILED_PRECONDITION, gone) if request.revision else responses(request)
    )
    line = error_line(bgan(*options))
    assert line.endswith(f"8 of 20 images are kept in {tmp_path / 'x.npy.partial'}; to start again, remove it")
    (tmp_path / "x.npy.partial").unlink()
    assert bgan(*options).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_models_as_json(liar):
    failures = [sampling_pb2.ModelFailure(model="bad", reason="is no model")]
    served = served_model(name="digits", classes=["a", "b"])
    served.model.metrics["loss"] = float("nan")
    liar.models = listed(served, failures=failures)
    result = bgan("models", "--server", liar.target, "--json")
    content = json.loads(result.stdout)
    assert result.stderr == ""
    assert content.keys() == {"server", "models", "failures", "limits"}
    assert content["failures"] == [{"model": "bad", "reason": "is no model"}]
    assert content["limits"].keys() == {"max_image_count", "max_batch_size", "max_message_bytes"}
    (model,) = content["models"]
    assert (model["name"], model["is_default"], model["classes"]) == ("digits", True, ["a", "b"])
    assert model["metrics"] == {"loss": None}
    assert model.keys() == {
        *(
            "name",
            "version",
            "revision",
            "is_default",
            "neuron",
            "binarization",
            "network",
            "image_shape",
            "slope",
        ),
        *("latent_size", "dataset", "run", "step", "epoch", "metrics", "classes", "class_counts", "arithmetic"),
        *("part_count", "mean_active_share"),
    }


def test_only_the_table_is_printed(liar):
    liar.models = listed(served_model(name="a"), failures=[sampling_pb2.ModelFailure(model="b", reason="broken")])
    result = bgan("models", "--server", liar.target)
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["model", "neuron"], ["*", "a"]]
    assert result.stderr.splitlines() == [
        f"models of {liar.target}; * is the default",
        "b cannot be served: broken",
    ]


def test_servers_are_repeated_or_in_the_old_spelling(liar, tmp_path):
    for name, given in (
        ("a", ("--server", liar.target, "--server", liar.target)),
        ("b", ("--servers", f"{liar.target},{liar.target}")),
    ):
        result = bgan("sample", *given, "-n", 20, "--seed", 5, "-o", tmp_path / f"{name}.npz")
        assert result.returncode == 0, result.stderr
        assert ("the old spelling goes with the next release" in result.stderr) == (name == "b")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    environment = {"BGAN_SERVER": f"{liar.target} {liar.target}", "BGAN_TIMEOUT": "nan"}
    result = bgan("sample", "-n", 20, "-o", tmp_path / "c.npz", env=environment)
    assert (result.returncode, "nan is no time" in result.stderr) == (2, True)
    assert (
        bgan("sample", "-n", 20, "-o", tmp_path / "c.npz", env=environment | {"BGAN_TIMEOUT": "9"}).returncode == 0
    )
