"""`bgan export` to a URL, as to a folder."""

import pytest

from tests.kit.cli import bgan, error_line
from tests.kit.models import make_run
from tests.kit.stores import BUCKET, bucket, s3_environment

fsspec = pytest.importorskip("fsspec", reason="the extra s3 is not installed")
URL = f"s3://{BUCKET}/exported"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs / "digits")
    make_run(runs / "other", seed=1)
    return runs


def test_a_model_goes_to_a_bucket_and_replaces_none_of_another_run(runs, s3_port):
    def export(*options, **others):
        environment = {**s3_environment(s3_port), **others}
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        return bgan("export", *options, "--runs-dir", runs, "--models", URL, env=environment)

    result = export("digits")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{URL}/digits.onnx\n"
    assert result.stderr.splitlines()[-1] == f"next: bgan serve --models {URL}"
    content = bucket(s3_port).get_object(Bucket=BUCKET, Key="exported/digits.onnx")["Body"].read()
    assert content == (runs / "digits" / "digits.onnx").read_bytes()
    line = error_line(export("other", "--name", "digits"))
    assert line.startswith(f"bgan: {URL}/digits.onnx is a model of the run 'digits'")
    line = error_line(export("digits", AWS_SECRET_ACCESS_KEY="wrong"))
    assert line.startswith(f"bgan: {URL} may not be read (")
    assert line.endswith("); check the credentials of this user or machine")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
