"""The folder of a run: held by one training, and found again whatever became of its log."""

import json

import pytest

from bgan.trainer.common.errors import RunError
from bgan.trainer.training.run import Run, held_alone

_RECORDS = [{"step": step, "epoch": 1, "discriminator": 0.5} for step in (24, 48, 72)]


def _metrics(tmp_path, *extra):
    run = Run(tmp_path)
    for record in _RECORDS:
        run.append_metrics(record)
    lines = run.metrics_file.read_bytes().splitlines(keepends=True)
    run.metrics_file.write_bytes(b"".join([*lines[:2], *extra, *lines[2:]]))
    return run


@pytest.mark.parametrize(
    "line",
    [
        *(b"\0" * 9 + b"\n", b'{"step": 4\n', b"[24]\n", b"24\n", b'{"epoch": 1}\n', b'{"step": "24"}\n', b"\n"),
        *(b"\xff\xfe{}\n", b'\0\0\0{"step": 24}\n', b'{"step": 24.5}\n'),
    ],
)
def test_a_damaged_line_is_counted_and_dropped(tmp_path, line):
    run = _metrics(tmp_path, line)
    assert run.forget_metrics_after(48) == 1
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == _RECORDS[:2]
    assert run.forget_metrics_after(48) == 0


def test_half_a_line_at_the_end_is_dropped(tmp_path):
    run = _metrics(tmp_path)
    run.metrics_file.write_bytes(run.metrics_file.read_bytes()[:-1])
    assert run.forget_metrics_after(72) == 1
    run.append_metrics(_RECORDS[2])
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == _RECORDS


def test_no_metrics_are_no_damage(tmp_path):
    assert Run(tmp_path).forget_metrics_after(9) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path):
    refused = pytest.raises(RunError, match=r"another process trains .*run; wait for it, or choose another --name")
    with held_alone(tmp_path / "run"):
        with refused, held_alone(tmp_path / "run"):
            pytest.fail("two have it")
        with held_alone(tmp_path / "other"):
            pass
    with held_alone(tmp_path / "run"):
        pass
