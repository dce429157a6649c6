"""The document of the HTTP port: complete, true to its own schemas, and kept by the server."""

import subprocess
import sys

import jsonschema
import pytest

from bgan.serving.web.encodings import ENCODINGS
from tests.kit.servers import server


@pytest.fixture(scope="module")
def document(http):
    return http.get("/openapi.json").json()


def _operations(document):
    return [(path, verb, each) for path, verbs in document["paths"].items() for verb, each in verbs.items()]


def test_every_address_is_there(http, document):
    for path, verb, _ in _operations(document):
        address = path.replace("{name}", "mlp-dbn").replace("{version}", "0").replace("{revision}", "0")
        refused = http.request("PATCH", address)
        assert refused.status_code == 405, path
        assert verb.upper() in refused.headers["allow"]
    names = {operation["operationId"] for _, _, operation in _operations(document)}
    assert len(names) == len(_operations(document)) == 18


def test_examples_are_as_their_schemas_say(document):
    checked = 0
    for path, _, operation in _operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in [*bodies, document["components"]["responses"]["problem"]]:
            for content in body.get("content", {}).values():
                if "example" in content:
                    schema = {**content["schema"], "components": document["components"]}
                    jsonschema.validate(content["example"], schema)
                    checked += 1
        for parameter in operation["parameters"]:
            assert f"{{{parameter['name']}}}" in path or parameter["in"] != "path"
            if "example" in parameter:
                jsonschema.validate(parameter["example"], parameter["schema"])
    assert checked > 30


def test_models_come_in_pages(http):
    whole, found, token = http.get("/v1/models").json(), [], ""
    while token or not found:
        page = http.get("/v1/models", params={"page_size": 1, "page_token": token}).json()
        found, token = [*found, *page["models"]], page["next_page_token"]
        assert len(page["models"]) == 1
    assert found == whole["models"]
    for query in ("page_size=-1", "page_size=1e3", "page_size=99999999999", "page_token=x"):
        answer = http.get(f"/v1/models?{query}")
        assert answer.status_code == 400
        assert [each["field"] for each in answer.json()["errors"]] == [query.partition("=")[0]]


@pytest.mark.parametrize(
    ("address", "schema"),
    [
        ("/v1/models", "Models"),
        ("/v1/models/mlp-dbn", "Model"),
        ("/v1/models/sbn/images?count=3&format=json", "Images"),
        ("/v1/models/sbn/images?count=0", "Problem"),
        ("/v1/models/nope", "Problem"),
        ("/nothing", "Problem"),
        ("/v2/models/mlp-dbn", "ModelMetadata"),
    ],
)
def test_answers_are_as_the_schemas_say(http, document, address, schema):
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.validate(http.get(address).json(), whole)


def test_the_formats_are_those_that_there_are(document):
    parameters = document["paths"]["/v1/models/{name}/images"]["get"]["parameters"]
    assert next(each for each in parameters if each["name"] == "format")["schema"]["enum"] == list(ENCODINGS)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_contract_fuzzer_finds_nothing(models, tmp_path):
    with server(models, "--http-port", 0, "--max-image-count", 500) as process:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{process.http}/openapi.json"]
        # A schema cannot tell what fits a model: its names, labels and shapes.
        command += ["--max-examples", "10", "--exclude-checks", "positive_data_acceptance"]
        found = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert found.returncode == 0, found.stdout[-8000:]
        assert "Traceback" not in process.output()
