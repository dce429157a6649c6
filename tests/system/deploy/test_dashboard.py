"""The Grafana dashboard: it can be imported, and asks for what a real server shows, all of it."""

import itertools
import json
import re
import shutil
import urllib.request
from collections import Counter

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import FOLDER, ROOT
from tests.kit.servers import server

DASHBOARD = json.loads((ROOT / "serving" / "deploy" / "grafana.json").read_text())
PANELS = DASHBOARD["panels"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """What a real server shows."""
    folder = tmp_path_factory.mktemp("shipped")
    for path in (ROOT / "serving" / "shipped" / "mlp-dbn.onnx", FOLDER / "gated" / "gated-dbn.onnx"):
        shutil.copy(path, folder)
    with server(folder, "--metrics-port", 0) as process:
        url = re.search(r"metrics on (http://\S+)", process.output())[1]
        with urllib.request.urlopen(url, timeout=30) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))


def test_every_metric_it_asks_for_is_served_with_those_labels(families):
    served = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    for expression in EXPRESSIONS:
        names = re.findall(r"\bbgan_\w+", expression)
        assert names, expression
        asked = {label for labels in re.findall(r"by \((.*?)\)", expression) for label in labels.split(", ")}
        matched = set(re.findall(r"(\w+)=~", expression)) - {"job", "instance"}  # which Prometheus adds
        for name in names:
            assert name in served, f"no server shows {name}"
            assert matched <= served[name], expression
        assert asked <= set().union(*(served[name] for name in names)), expression


def test_it_shows_every_metric_of_a_server(families):
    asked = " ".join(EXPRESSIONS)
    assert families
    for family in families:
        assert any(sample.name in asked for sample in family.samples), f"no panel shows {family.name}"


def test_the_documentation_lists_what_is_served_and_nothing_else(families):
    text = (ROOT / "docs" / "observing.md").read_text()
    rows = re.findall(r"^\| `(bgan_\w+)` \| (\w+) \|(.*?)\| (.*) \|$", text, re.M)
    said = {name: (kind, set(re.findall("`(.*?)`", labels))) for name, kind, labels, _ in rows}
    shown = {}
    for family in families:
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[f"{family.name}_total" if family.type == "counter" else family.name] = (family.type, labels)
    assert said == shown
    (reasons,) = (set(re.findall("`(.*?)`", what)) for name, *_, what in rows if name == "bgan_rejected_total")
    (rejected,) = (family for family in families if family.name == "bgan_rejected")
    assert reasons == {sample.labels["reason"] for sample in rejected.samples}


def test_every_expression_can_be_parsed():
    for expression in EXPRESSIONS:
        assert promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def test_it_is_a_dashboard_that_can_be_imported():
    assert "id" not in DASHBOARD  # Grafana would take it for one of its own
    assert DASHBOARD["title"] == DASHBOARD["uid"] == "bgan"
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS))) - {"__rate_interval"}
    assert used == variables.keys()
    assert max(Counter(panel["id"] for panel in PANELS).values()) == 1
    assert max(Counter(panel["title"] for panel in PANELS).values()) == 1
    for panel in PANELS:
        assert panel["description"]
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])
        assert max(Counter(target["refId"] for target in panel["targets"]).values()) == 1


def test_no_panels_overlap():
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
