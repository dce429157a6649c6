"""`bgan reproduce`: trains, resumes, measures and reports, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.kit.cli import BGAN, bgan

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("processes", "training")]
# Two jobs have a thread each; one would have a thread a core, which wait for each other on a busy machine.
ARGUMENTS = (
    *("reproduce", "--dataset", "digits", "--experiment", "I", "--preset", "paper"),
    *("--count", "64", "--jobs", "2"),
)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, cache_environment):
    folder = tmp_path_factory.mktemp("reproduction") / "out"
    result = bgan(*ARGUMENTS, "--epochs", 1, "--output", folder, env=cache_environment)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_the_report_stands_by_itself(reproduced):
    folder, result = reproduced
    assert str(folder / "report.md") in result.stdout
    text = (folder / "report.md").read_text()
    assert "Experiment I: deterministic against stochastic" in text
    assert "- Experiment III" in text.partition("## What was not run")[2]
    assert "| DBNs and SBNs give samples of similar quality | `paper` | **" in text
    assert "floor: real images" in text
    pictures = re.findall(r"\]\((figures/[^)]+\.png)\)", text)
    assert len(pictures) == 2
    for picture in pictures:
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert len(json.loads((folder / "report.json").read_text())["outcomes"]) == 2


def test_the_same_command_does_nothing_twice(reproduced, cache_environment):
    folder, _ = reproduced
    files = [path for name in ("runs", "evaluations") for path in (folder / name).rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    result = bgan(*ARGUMENTS, "--epochs", 1, "--output", folder, env=cache_environment)
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_experiments_that_were_run_before_stay_in_the_report(reproduced, cache_environment):
    folder, _ = reproduced
    arguments = ("--experiment", "IV", "--preset", "paper", "--epochs", 1, "--count", 64, "--no-train")
    result = bgan("reproduce", "--dataset", "digits", *arguments, "--output", folder, env=cache_environment)
    assert result.returncode == 0, result.stderr
    text = (folder / "report.md").read_text()
    assert "## Experiment I:" in text
    assert "- Experiment IV, `paper`: CNN, DBN, WGAN-GP (1 of 1 seeds)" in text
    result = bgan(*ARGUMENTS[:2], "mnist", "--data-dir", folder, "--output", folder, env=cache_environment)
    assert result.returncode == 1


def test_a_signal_saves_the_trainings_for_the_same_command_to_resume(tmp_path, cache_environment):
    folder = tmp_path / "out"
    command = [*ARGUMENTS, "--epochs", "40", "--output", str(folder)]
    process = subprocess.Popen(
        [str(BGAN), *command], stderr=subprocess.PIPE, text=True, env={**os.environ, **cache_environment}
    )
    logs = [folder / "logs" / f"paper-digits-mlp-{n}-wgan-gp-seed0-40ep.log" for n in ("dbn", "sbn")]
    metrics = [folder / "runs" / log.stem / "metrics.jsonl" for log in logs]
    end = time.monotonic() + 120
    while not all(path.exists() for path in metrics):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command resumes them" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    for log in logs:
        assert "stopped and saved at step" in log.read_text()
        assert list((folder / "runs" / log.stem / "checkpoints").glob("*.safetensors"))


def test_bad_input(tmp_path, cache_environment):
    for arguments, says in (
        (("--experiment", "V"), "choose from I, II, III, IV"),
        (("--preset", "sota"), "choose from published, paper"),
        (("--published-samples", tmp_path / "none.npz"), "there is no file"),
        (("--no-train", "--output", tmp_path / "new"), "nothing in"),
    ):
        result = bgan("reproduce", "--dataset", "digits", *arguments, cwd=tmp_path, env=cache_environment)
        assert result.returncode == (2 if says.startswith("choose") else 1), result.stderr
        assert says in result.stderr
        assert "Traceback" not in result.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    result = bgan("reproduce", "--dataset", "digits", "--output", tmp_path / "mine", env=cache_environment)
    assert "not the folder of a reproduction" in result.stderr


def test_a_training_that_fails_is_named_with_its_reason(tmp_path, cache_environment):
    folder = tmp_path / "out"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "paper-digits-mlp-sbn-wgan-gp-seed0-1ep").write_text("in the way")
    result = bgan(*ARGUMENTS, "--epochs", 1, "--output", folder, env=cache_environment)
    assert result.returncode == 1
    assert "paper-digits-mlp-sbn-wgan-gp-seed0-1ep failed: " in result.stderr.splitlines()[-1]
    assert (folder / "runs" / "paper-digits-mlp-dbn-wgan-gp-seed0-1ep" / "report.json").is_file()
