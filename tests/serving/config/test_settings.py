"""Settings of the real command: flags, environment and file, and what is said of those that cannot be."""

import tomllib
from pathlib import Path

import pytest
import typer

from bgan.clients import SamplingClient
from bgan.serving.cli.commands import serve
from bgan.serving.config.settings import SETTINGS, ServerSettings
from bgan.serving.config.sources import resolve
from bgan.serving.errors import StartError
from tests.kit.cli import bgan
from tests.kit.servers import server

FILE = 'models = "of the file"\nport = 1\nmax_streams = 1\nhost = "a \\"b\\" \\u007f ä"\n'


def _printed(*options, **env):
    result = bgan("serve", "--print-config", *options, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(FILE)
    return path


def test_options_override_the_environment_and_that_the_file(file):
    text = _printed("--config", file, "--port", 3, BGAN_PORT="2", BGAN_MAX_STREAMS="2", BGAN_THREADS="")
    settings = tomllib.loads(text)
    assert [settings[name] for name in ("port", "max_streams", "models", "threads")] == [3, 2, "of the file", 0]
    for origin in ("from --port\nport =", "from BGAN_MAX_STREAMS\nmax_streams =", f"from {file}\nmodels ="):
        assert origin in text
    assert "from the default\nthreads =" in text
    assert tomllib.loads(_printed(BGAN_CONFIG=str(file)))["port"] == 1


def test_what_is_printed_gives_the_same_settings_again(file, tmp_path):
    printed = tmp_path / "printed.toml"
    printed.write_text(_printed("--config", file, "--grace-seconds", 0.25))
    settings = tomllib.loads(printed.read_text())
    assert tomllib.loads(_printed("--config", printed)) == settings
    assert settings["host"] == 'a "b" \x7f ä'
    assert settings["grace_seconds"] == 0.25
    files = {"tls_certificate", "tls_key", "tls_client_ca", "tokens", "http_runtime"}
    unset = {"default_model", "http_port", "http_origins", "metrics_port", "trace_endpoint", *files}
    assert settings.keys() == ServerSettings.model_fields.keys() - unset - {"model_cache"}


def test_every_setting_is_an_option_that_shows_its_default_and_is_described():
    options = typer.main.get_params_from_function(serve)
    for name, field in ServerSettings.model_fields.items():
        option = options[name].default
        assert option.help == " ".join(field.description.split()), name
        assert option.rich_help_panel == SETTINGS[name].panel, name
        assert option.show_default, name
        if isinstance(field.default, int | float) and field.default and field.default is not True:
            assert option.show_default == f"{field.default:g}" or option.show_default == str(field.default), name


def test_choices_are_completed():
    completion = {"_BGAN_COMPLETE": "complete_bash", "COMP_WORDS": "bgan serve --log-calls ", "COMP_CWORD": "3"}
    assert bgan(env=completion).stdout.split() == ["none", "failed", "all"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_stream = 1", "server.toml: max_stream is not a setting; did you mean max_streams?"),
        ("[limits]\nstreams = 1", "server.toml: limits is not a setting; there are models, default_model"),
        ('port = "many"', "server.toml: port is 'many'; use a whole number from 0 to 65535"),
        ("port = 65536", "server.toml: port is 65536; use a whole number from 0 to 65535"),
        ("port = 1.5", "server.toml: port is 1.5; use a whole number"),
        ("port = true", "server.toml: port is True; use a whole number"),
        ("models = 5", "server.toml: models is 5; use a path, or a URL such as s3://bucket/models"),
        ("grace_seconds = nan", "server.toml: grace_seconds is nan; use a number from 0 to 86400"),
        ("stalled_write_seconds = 0", "use a number above 0 to 86400"),
        ("log_calls = 'some'", "server.toml: log_calls is 'some'; use one of none, failed, all"),
        ("port 1", "server.toml is not TOML (Expected '='"),
        (b"\xff", "server.toml is not TOML"),
        (None, "server.toml cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_cannot_be_meant(file, text, says):
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StartError) as caught:
        resolve({}, file)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "env", "says"),
    [
        ({"workers": 0}, {}, "--workers: workers is 0; use a whole number from 1 to 256"),
        ({}, {"BGAN_PORT": "10.0.0.1:80"}, "BGAN_PORT: port is '10.0.0.1:80'; use a whole number"),
        ({}, {"BGAN_MAX_STREAM": "5"}, "BGAN_MAX_STREAM is not a setting; did you mean BGAN_MAX_STREAMS?"),
        ({"grace_seconds": -1.0}, {}, "--grace-seconds: grace_seconds is -1.0; use a number from 0"),
        ({"http_origins": "*"}, {}, "--http-origins: http_origins is '*'; use origins such as https://a.example"),
        ({}, {"BGAN_HTTP_ORIGINS": "https://a.example/x"}, "BGAN_HTTP_ORIGINS: http_origins is 'https://a.ex"),
    ],
)
def test_options_and_variables_that_cannot_be_meant(flags, env, says, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartError) as caught:
        resolve(flags, None)
    assert says in str(caught.value)


def test_what_cannot_be_meant_is_one_line_of_the_command(file):
    result = bgan("serve", "--config", file, "--port", 65536)
    assert result.returncode == 2
    assert result.stderr == "bgan: --port: port is 65536; use a whole number from 0 to 65535\n"


def test_variables_of_others_are_left_alone(monkeypatch):
    settings = resolve({}, None)
    for name in ("BGAN_DATA_DIR", "BGAN_SERVER", "BGAN_DEBUG", "BGAN_SERVICE_HOST", "BGAN_THREADS"):
        monkeypatch.setenv(name, "" if name == "BGAN_THREADS" else "x")
    assert resolve({}, None) == settings


@pytest.mark.parametrize("service", ["BGAN", "BGAN_METRICS", "BGAN_HTTP"])
def test_what_kubernetes_sets_for_a_service_of_that_name_is_no_setting(monkeypatch, service):
    address = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "50051", "SERVICE_PORT_GRPC": "50051"}
    links = {"": "tcp://10.0.0.1:80", "_80_TCP": "tcp://10.0.0.1:80", "_80_TCP_PROTO": "tcp", "_80_TCP_PORT": "80"}
    settings = resolve({}, None)
    for name, value in {**address, **{f"PORT{name}": value for name, value in links.items()}}.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert resolve({}, None) == settings


def test_a_file_reaches_the_workers(models, tmp_path):
    path = tmp_path / "server.toml"
    path.write_text('workers = 2\ndefault_model = "mlp-sbn"\nmax_image_count = 5\n')
    with server(models, "--config", path) as process, SamplingClient(process.target) as client:
        assert client.list_models().limits.max_image_count == 5
        assert client.get_model().name == "mlp-sbn"


def test_a_path_that_is_not_utf8_reaches_the_workers_and_no_toml():
    path = Path("models\udcff")  # as Python has a file's name with the byte 255
    settings = ServerSettings(models=path, tokens=path, workers=2, default_model="x\udcff")
    assert ServerSettings.of_argument(settings.as_argument()) == settings
    with pytest.raises(StartError) as caught:
        resolve({"models": path}, None).as_toml()
    assert str(caught.value) == r"models is models\udcff, which is not UTF-8: TOML cannot hold it"


@pytest.mark.parametrize(
    ("variables", "options", "endpoint", "origin"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, {}, "http://a:1", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "a:1"}, {}, "https://a:1", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "a:1", "OTEL_EXPORTER_OTLP_INSECURE": "True"},
            {},
            "http://a:1",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:1"},
            {},
            "http://b:1",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "BGAN_TRACE_ENDPOINT": "http://c:1"},
            {},
            "http://c:1",
            "BGAN_TRACE_ENDPOINT",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"},
            {"trace_endpoint": "http://d:1"},
            "http://d:1",
            "--trace-endpoint",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_SDK_DISABLED": "true"}, {}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_TRACES_EXPORTER": "none"}, {}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, {}, None, None),
    ],
)
def test_the_standard_variables_of_traces_are_the_last_resort(monkeypatch, variables, options, endpoint, origin):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    resolved = resolve(options, None)
    assert resolved.settings.trace_endpoint == endpoint
    assert resolved.origins.get("trace_endpoint") == origin


def test_origins_are_repeated_or_a_list_or_in_the_old_spelling(tmp_path):
    (tmp_path / "x.toml").write_text('http_origins = ["https://a.example", "https://b.example"]\n')
    expected = 'http_origins = "https://a.example,https://b.example"'
    for given in (
        ("--http-origins", "https://a.example", "--http-origins", "https://b.example"),
        ("--http-origins", "https://a.example,https://b.example"),
        ("--config", tmp_path / "x.toml"),
    ):
        assert expected in bgan("serve", *given, "--print-config").stdout.splitlines()
