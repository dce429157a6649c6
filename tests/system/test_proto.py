"""The protos keep what the last release has; their stubs work with the oldest packages of the clients."""

import re
import shutil
import subprocess
import tomllib

import pytest

from tests.conftest import ROOT

BUF = ROOT / ".tools" / "node_modules" / ".bin" / "buf"


def _git(folder, *arguments):
    names = "-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


def _check(folder):
    command = ["make", "--silent", "proto-breaking", f"BUF={BUF}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path):
    """A repository of the protos, without a tag."""
    if not BUF.exists():
        pytest.skip("buf is not here; make proto-lint fetches it")
    shutil.copytree(ROOT / "proto", tmp_path / "house" / "proto")
    shutil.copy(ROOT / "Makefile", tmp_path / "house")
    _git(tmp_path / "house", "init", "--quiet")
    _git(tmp_path / "house", "add", ".")
    _git(tmp_path / "house", "commit", "--quiet", "-m", "one")
    return tmp_path / "house"


def _change(house, old, new):
    path = house / "proto" / "bgan" / "v1" / "sampling.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    _git(house, "commit", "--quiet", "-a", "-m", "another")


def test_a_field_that_changes_its_number_breaks_a_release(house):
    before = _check(house)
    assert before.returncode == 0
    assert before.stderr == "proto-breaking: there is no release yet to compare with\n"
    _git(house, "tag", "v0.9.0")
    _git(house, "tag", "v0.10.0")
    _change(house, "int64 image_count = 2;", "int64 image_count = 2;\n  // Of a test.\n  int64 another = 10;")
    assert _check(house).returncode == 0  # new fields do no harm
    _change(house, "int64 image_count = 2;", "int64 image_count = 12;")
    clone = house.with_name("clone")
    _git(house, "clone", "--quiet", "--depth", "1", "--no-tags", house.as_uri(), clone)
    for folder in (house, clone):
        result = _check(folder)
        assert result.returncode != 0
        assert 'Previously present field "2" with name "image_count"' in result.stdout
        assert "the protos break what v0.10.0 has" in result.stderr


def test_the_floors_are_those_that_are_tested():
    """In the packages of `make test-floors`, and in the generator of the stubs."""
    floors = ROOT / "tests" / "environments" / "floors.txt"
    pins = dict(line.split("==") for line in floors.read_text().splitlines() if "==" in line)
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = dict(re.fullmatch(r"([a-z-]+)>=([0-9.]+)(?:,.*)?", each).groups() for each in asked)
    assert {"grpcio", "protobuf", "numpy"} < set(found)
    for name, floor in found.items():
        assert f"{pins[name]}.".startswith(f"{floor}."), name
    generator = re.search(r"^PROTOC_VERSION := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert generator == pins["grpcio"]
