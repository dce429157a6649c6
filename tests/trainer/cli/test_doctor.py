"""`bgan doctor`: what a bug report needs, without torch and without secrets."""

import json
import os
import subprocess
import sys

from tests.kit.cli import bgan

SECRET = {
    "BGAN_TOKEN": "topsecret",
    "BGAN_MODELS": "s3://AKIA:topsecret@bucket/models?sig=topsecret",
    "OTEL_EXPORTER_OTLP_HEADERS": "key=topsecret",
}


def test_everything_is_said_and_nothing_secret(tmp_path):
    (tmp_path / "data" / "MNIST").mkdir(parents=True)
    environment = {**SECRET, "BGAN_CACHE_DIR": str(tmp_path / "cache"), "BGAN_PORT": "5"}
    result = bgan("doctor", "--json", cwd=tmp_path, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert {"bgan", "machine", "extras", "folders", "data_sets", "variables", "serving"} <= facts.keys()
    assert {"version", "python", "executable"} <= facts["bgan"].keys()
    assert {"system", "processor", "cores", "cores_usable", "cpu_class"} <= facts["machine"].keys()
    assert {"base", "serve", "train"} <= facts["extras"].keys()
    assert facts["extras"]["base"]["numpy"]
    assert facts["data_sets"] == {"digits": "bundled", "MNIST": os.path.join("data", "MNIST")}
    assert facts["folders"]["cache"] == f"{tmp_path / 'cache'} (not there yet)"
    assert facts["variables"]["BGAN_PORT"] == "5"
    assert facts["variables"]["BGAN_MODELS"] == "s3://bucket/models"
    shown = bgan("doctor", cwd=tmp_path, env=environment)
    assert "topsecret" not in shown.stdout + result.stdout
    assert "AKIA" not in shown.stdout + result.stdout
    for title in facts:
        assert f"{title}:\n" in shown.stdout


def test_folders_that_cannot_be_looked_into_are_said(tmp_path):
    """A name that is too long stands for a folder of another user: tests run as root, who may look everywhere."""
    closed = str(tmp_path / ("x" * 300))
    environment = dict.fromkeys(("BGAN_CACHE_DIR", "BGAN_RUNS_DIR", "BGAN_DATA_DIR", "BGAN_MODELS"), closed)
    result = bgan("doctor", "--json", cwd=tmp_path, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert facts["folders"] == dict.fromkeys(("data", "cache", "runs"), f"{closed} (File name too long)")
    assert facts["serving"]["files"] == []


def test_it_loads_no_torch(processes):
    code = """if True:
        import sys
        sys.argv = ["bgan", "doctor"]
        from bgan.trainer.cli.app import main
        try:
            main()
        except SystemExit:
            print([name for name in ("torch", "grpc", "torchvision") if name in sys.modules])
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_without_the_packages_of_serving_the_rest_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "bgan.serving.models.engine", raising=False)
    facts = json.loads(bgan("doctor", "--json").stdout)
    assert facts["serving"] == {"missing": "onnxruntime"}
    assert facts["bgan"]["version"]
