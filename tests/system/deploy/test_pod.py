"""A server as the manifests start it: what Kubernetes asks of it, it answers, and what they name is there."""

import re
import resource
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from bgan.clients import SamplingClient
from tests.kit.cli import bgan_process
from tests.kit.servers import server
from tests.system.deploy.files import manifest, pod_variables, probes


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    """It has the variables of a pod, other ports, and no volume of models."""
    variables = {**pod_variables(), "BGAN_METRICS_PORT": "0"}
    with server(None, env=variables, cwd=tmp_path_factory.mktemp("root")) as process:
        yield process


def test_it_serves_the_models_that_come_with_bgan(pod):
    with SamplingClient(pod.target) as client:
        (batch,) = client.sample_binary_images(image_count=2, seed=1)
        assert batch.images.shape == (2, 1, 28, 28)


@pytest.mark.parametrize("kind", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_its_probes_find_it_serving(pod, kind):
    with grpc.insecure_channel(pod.target) as channel:
        request = health_pb2.HealthCheckRequest(service=probes()[kind].get("service", ""))
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_check_of_the_image_finds_it_serving(pod):
    result = bgan_process("health", "--timeout-seconds", 60, env={**pod_variables(), "BGAN_PORT": str(pod.port)})
    assert result.returncode == 0, result.stderr


def test_the_autoscaler_and_its_adapter_follow_a_metric_that_is_served(pod):
    url = re.search(r"metrics on (http://\S+)", pod.output())[1]
    with urllib.request.urlopen(url, timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    served = {sample.name for family in families for sample in family.samples}
    followed = {one["pods"]["metric"]["name"] for one in manifest("autoscaler")["spec"]["metrics"]}
    shown = {rule["seriesQuery"].split("{")[0] for rule in manifest("adapter-values")["rules"]["custom"]}
    assert followed
    assert followed <= served
    assert followed == shown


def test_metrics_of_workers_where_no_file_can_be_written_are_one_line():
    """As on a read-only root without a volume at /tmp."""

    def write_nothing():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    result = bgan_process("serve", "--port", 0, "--workers", 2, "--metrics-port", 0, preexec_fn=write_nothing)
    assert result.returncode == 1
    assert "bgan: the metrics of several workers need a folder for temporary files" in result.stderr
    assert "Traceback" not in result.stderr
