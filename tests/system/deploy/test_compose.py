"""compose.yaml: Docker Compose takes it, it fits the server, and a real Prometheus answers what Grafana asks."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.kit.cli import BGAN
from tests.kit.servers import free_port, server
from tests.kit.waiting import eventually
from tests.system.deploy.files import COMPOSE, CONTAINERFILE, FOLDER, image_variables, seconds_to_stop, settings
from tests.system.deploy.test_dashboard import EXPRESSIONS

MISSPELT = {"read_only": "readonly", "target:": "targets:", "tmpfs": "tmp_fs", "content": "contents"}


def compose(file):
    command = [BGAN.with_name("docker-compose"), "--file", file, "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def project():
    result = compose(COMPOSE)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def content(name):
    """A configuration file of a container."""
    return yaml.safe_load(project()["configs"][name]["content"])


def services():
    return project()["services"]


def mounted(service):
    """Where a service finds its configurations, and the files of this folder."""
    files = {one["source"]: one["target"] for one in services()[service]["configs"]}
    return files | {one["source"]: one["target"] for one in services()[service].get("volumes", [])}


def server_settings():
    return settings({**image_variables(), **services()["bgan"]["environment"]})


@pytest.mark.parametrize("field", MISSPELT)
def test_docker_compose_takes_it_and_no_misspelt_field(tmp_path, field):
    assert services().keys() == {"bgan", "prometheus", "grafana"}
    spoiled = tmp_path / "compose.yaml"
    spoiled.write_text(COMPOSE.read_text().replace(field, MISSPELT[field]))
    result = compose(spoiled)
    assert result.returncode != 0
    assert MISSPELT[field].rstrip(":") in result.stderr


def test_the_server_is_the_one_of_the_image():
    build = services()["bgan"]["build"]
    assert Path(build["context"]) == ROOT
    assert ROOT / build["dockerfile"] == CONTAINERFILE
    assert services()["bgan"]["image"] == f"bgan:{version('bgan')}"


def test_no_other_machine_reaches_it():
    ports = [port for service in services().values() for port in service["ports"]]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)


def test_the_server_listens_where_it_is_asked_and_has_time_to_stop():
    found = server_settings()
    assert [port["target"] for port in services()["bgan"]["ports"]] == [found["port"], found["http_port"]]
    assert found["host"] == found["metrics_host"] == "0.0.0.0"
    seconds = int(services()["bgan"]["stop_grace_period"].removesuffix("s"))
    assert seconds > seconds_to_stop(found)


def test_prometheus_asks_the_server_as_often_as_grafana_takes_for_granted():
    (job,) = content("prometheus")["scrape_configs"]
    (targets,) = job["static_configs"]
    assert targets == {"targets": [f"bgan:{server_settings()['metrics_port']}"]}
    assert content("prometheus")["global"]["scrape_interval"] == "15s"
    assert mounted("prometheus")["prometheus"] == "/etc/prometheus/prometheus.yml"  # where its image looks


def test_grafana_finds_its_prometheus_and_the_dashboard():
    (source,) = content("datasources")["datasources"]
    (port,) = services()["prometheus"]["ports"]
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{port['target']}")
    assert source["isDefault"]
    (provider,) = content("dashboards")["providers"]
    dashboard = mounted("grafana")[str(FOLDER / "grafana.json")]
    assert provider["type"] == "file"
    assert Path(dashboard).parent == Path(provider["options"]["path"])
    assert services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard
    for name in ("datasources", "dashboards"):
        assert Path(mounted("grafana")[name]).parent == Path("/etc/grafana/provisioning") / name


@contextmanager
def prometheus(file, folder):
    """A Prometheus of that file: a function that asks it."""
    at = f"localhost:{free_port()}"
    options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={at}"]

    def ask(expression):
        url = f"http://{at}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.URLError:
            return []  # it does not listen yet

    process = subprocess.Popen(["prometheus", *options], stderr=subprocess.DEVNULL)
    try:
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def filled(expression):
    """With the dashboard's variables as it begins."""
    for variable, value in {"__rate_interval": "1m", "job": ".*", "instance": ".*", "model": ".*"}.items():
        expression = expression.replace(f"${variable}", value)
    return expression


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not here")
def test_a_real_prometheus_of_that_configuration_answers_all_that_the_dashboard_asks(tmp_path, gated_models):
    with server(gated_models, "--metrics-port", 0) as process:
        address = re.search(r"metrics on http://([^/\s]+)", process.output())[1]
        text = project()["configs"]["prometheus"]["content"]
        file = tmp_path / "prometheus.yml"
        file.write_text(text.replace("bgan:9090", address).replace("15s", "200ms"))
        assert file.read_text().count(address) == 1
        subprocess.run(["promtool", "check", "config", file], check=True, capture_output=True)
        with prometheus(file, tmp_path) as ask:
            eventually(lambda: ask('rate(bgan_streams{job="bgan"}[1m])'))
            empty = [expression for expression in EXPRESSIONS if not ask(filled(expression))]
    # Where no call was refused there is nothing to tell apart.
    assert empty == [expression for expression in EXPRESSIONS if expression.endswith("> 0")]
