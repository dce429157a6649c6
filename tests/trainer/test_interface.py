"""What `bgan.trainer` exports, and that the commands use nothing else of the trainer."""

import ast
import subprocess
import sys
import typing

import pytest

import bgan.trainer
from tests.conftest import ROOT

CLI = sorted((ROOT / "trainer" / "cli").glob("*.py"))


def test_every_name_is_there():
    for name in bgan.trainer.__all__:
        value = getattr(bgan.trainer, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bgan.trainer.nothing  # noqa: B018
    assert set(bgan.trainer.__all__) <= set(dir(bgan.trainer))


def test_a_submodule_takes_the_place_of_no_name():
    folders = {
        path.parent.name for path in (ROOT / "trainer").glob("*/__init__.py")
    }  # others hold old caches alone
    assert folders.isdisjoint(bgan.trainer.__all__)


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "trainer" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = [(node.module, alias.asname) for node in block.body for alias in node.names]
    assert sorted(seen) == sorted((module, name) for name, module in bgan.trainer._MODULES.items())


def test_to_import_it_loads_no_torch():
    code = (
        "import sys, bgan.trainer; bgan.trainer.TrainingConfig, dir(bgan.trainer); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("path", CLI, ids=lambda path: path.stem)
def test_a_command_uses_what_the_trainer_exports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            if node.module is None:
                assert {alias.name for alias in node.names} <= set(bgan.trainer.__all__)
            else:
                assert node.module.split(".")[0] in {"common", "config"}, f"{path.name}: {node.module}"


def test_the_interface_is_typed():
    hints = typing.get_type_hints(bgan.trainer.train)
    assert hints["return"] is bgan.trainer.Run
