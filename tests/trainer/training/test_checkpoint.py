import pytest
import torch

from bgan.trainer.common.errors import CheckpointError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.training.checkpoint import (
    MAX_CHECKPOINTS,
    CheckpointMeta,
    checkpoint_files,
    load_checkpoint,
    load_newest_checkpoint,
    save_checkpoint,
)


def _save(folder, step):
    meta = CheckpointMeta(step=step, epoch=1, slope=1.1, image_shape=ImageShape(1, 2, 3), seconds=0.5)
    return save_checkpoint(folder, {"weight": torch.full((3,), float(step)), "count": torch.tensor(step)}, meta)


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint = load_checkpoint(_save(tmp_path, 7))
    assert checkpoint.meta == CheckpointMeta(
        step=7, epoch=1, slope=1.1, image_shape=ImageShape(1, 2, 3), seconds=0.5
    )
    assert torch.equal(checkpoint.tensors["weight"], torch.full((3,), 7.0))
    assert checkpoint.tensors["count"].shape == ()


def test_only_the_newest_are_kept(tmp_path):
    for step in range(MAX_CHECKPOINTS + 3):
        _save(tmp_path, step)
    assert [load_checkpoint(path).meta.step for path in checkpoint_files(tmp_path)] == [5, 4, 3]
    assert len(list(tmp_path.iterdir())) == 2 * MAX_CHECKPOINTS


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no sidecar", "bad sidecar"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    _save(tmp_path, 1)
    newest = _save(tmp_path, 2)
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[:-5])
    elif damage == "flipped":
        content[-1] ^= 1
        newest.write_bytes(content)
    elif damage == "no sidecar":
        newest.with_suffix(".json").unlink()
    else:
        newest.with_suffix(".json").write_text('{"step": 2')
    warnings = []
    assert load_newest_checkpoint(tmp_path, warnings.append).meta.step == 1
    assert len(warnings) == 1
    assert newest.name in warnings[0]


def test_no_checkpoint_at_all_is_no_error_but_only_damaged_ones_are(tmp_path):
    assert load_newest_checkpoint(tmp_path, pytest.fail) is None
    _save(tmp_path, 1).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_newest_checkpoint(tmp_path, lambda text: None)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_litter(tmp_path, monkeypatch):
    _save(tmp_path, 1)

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _save(tmp_path, 2)
    monkeypatch.undo()
    assert load_newest_checkpoint(tmp_path, pytest.fail).meta.step == 1
    assert len(list(tmp_path.iterdir())) == 2
