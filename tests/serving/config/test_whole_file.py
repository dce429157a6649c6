"""Files that are written whole or not at all."""

import stat

import pytest

from bgan.serving.config.whole_file import whole_file


@pytest.mark.parametrize("has_rivals", [False, True])
def test_a_file_has_its_name_when_it_is_whole_and_keeps_its_permissions(tmp_path, has_rivals):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError), whole_file(path, has_rivals=has_rivals) as file:
        file.write(b"half")
        raise RuntimeError
    assert ([each.name for each in tmp_path.iterdir()], path.read_bytes()) == (["x"], b"old")
    with whole_file(path, has_rivals=has_rivals) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert ([each.name for each in tmp_path.iterdir()], path.read_bytes()) == (["x"], b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_a_crash_left_is_written_over_and_rivals_have_names_of_their_own(tmp_path):
    (tmp_path / ".x.tmp").write_bytes(b"of a crash, and longer")
    with whole_file(tmp_path / "x") as file:
        file.write(b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    with whole_file(tmp_path / "x", has_rivals=True) as one, whole_file(tmp_path / "x", has_rivals=True) as other:
        assert one.name != other.name
        one.write(b"1")
        other.write(b"2")
    assert (tmp_path / "x").read_bytes() == b"1"
