"""The tiers hold what they promise, and the server and the clients are tested without torch."""

import ast
import os
import subprocess
import sys

import pytest

from bgan.trainer.training.trainer import Trainer
from tests.conftest import ROOT
from tests.fixtures import write
from tests.kit.cli import bgan, bgan_process
from tests.kit.servers import RestartingServer, restarting_server, server
from tests.kit.tiers import STEPS_AT_MOST, starts_processes

WITHOUT_TORCH = [ROOT / "tests" / room for room in ("serving", "clients")]


@pytest.mark.parametrize(
    ("function", "starts"),
    [(bgan, False), (bgan_process, True), (server, True), (restarting_server, True), (RestartingServer, True)],
)
def test_the_tier_is_read_from_the_code(function, starts):
    assert starts_processes(function) is starts


def test_a_fast_test_may_not_start_a_process():
    with pytest.raises(pytest.fail.Exception, match="let it use the fixture `processes`"):
        os.system("true")


def test_a_fast_test_may_not_train_for_long(tmp_path):
    from tests.kit.models import make_run

    assert Trainer.advance.__wrapped__
    settings = {"shape": (1, 2, 2), "objective": "gan", "latent_size": 2}
    make_run(tmp_path / "short", steps=STEPS_AT_MOST - 1, **settings)
    with pytest.raises(pytest.fail.Exception, match="let it use the fixture `training`"):
        make_run(tmp_path / "long", steps=2, **settings)


def test_a_fast_test_may_not_export(tmp_path):
    from tests.kit.models import make_model

    with pytest.raises(pytest.fail.Exception, match="let it use the fixture `exporting`"):
        make_model(tmp_path, "small", shape=(1, 2, 2))


def test_model_files_are_what_the_script_writes(tmp_path):
    write.write(tmp_path)
    for path in write.MODELS:
        assert (write.FOLDER / f"{path}.onnx").read_bytes() == (tmp_path / f"{path}.onnx").read_bytes()


def test_tests_of_the_server_and_the_clients_name_no_torch():
    for path in (path for folder in WITHOUT_TORCH for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("torch", "bgan.trainer", "tests.kit.models")) for name in names), path


def test_tests_of_the_server_and_the_clients_load_no_torch():
    code = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]) or 'torch' in sys.modules)"
    options = ("--collect-only", "--quiet", "-p", "no:cacheprovider")
    command = [sys.executable, "-c", code, *options, *map(str, WITHOUT_TORCH)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
