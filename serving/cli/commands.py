"""The commands that run a model: bgan serve, health, top, generate, bulk and gallery."""

import inspect
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from inspect import Parameter
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, BadParameter, Option

from ..config.addresses import own_address
from ..config.settings import SETTINGS, SHIPPED, WHICH_FOLDER, Setting, is_url, model_folder
from ..config.sources import resolve
from ..config.stores import without_secrets
from ..errors import NotServingError, StartError, TokenFileError
from .json_output import JsonFile, wrote_json

_WINDOWS = (
    "bgan serve needs the signals and file locks of Linux or macOS; on Windows run it in WSL or in a container "
    "(bgan generate, sample, train and export work here)"
)
_ConfigFile = Annotated[
    Path | None, Option(help="A TOML file of settings, as --print-config writes it.", envvar="BGAN_CONFIG")
]
_Models = Annotated[
    str | None,
    Option(
        "--models",
        metavar="PATH|URL",
        help="The folder, or URL (s3://, https://), of models in which to look names up.",
        envvar="BGAN_MODELS",
        show_default=WHICH_FOLDER,
    ),
]


_Provider = Annotated[
    Literal["cpu", "cuda", "openvino"], Option(help="What computes the images; see bgan serve --provider.")
]


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting in place of its `**options`; one that is not given is None.

    Values are checked where settings are resolved, so that all sources have the same messages.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    parameters = [*map(_parameter, SETTINGS.values()), *own]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _parameter(setting: Setting) -> Parameter:
    option: Any = Option(
        f"{setting.option}/--no-{setting.option[2:]}" if setting.kind is bool else setting.option,
        help=setting.help,
        metavar=setting.metavar,
        show_default=setting.default,
        rich_help_panel=setting.panel,
        autocompletion=lambda incomplete: [each for each in setting.choices if each.startswith(incomplete)],
    )
    kind: Any = list[str] if setting.is_repeated else setting.kind
    return Parameter(setting.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


@_settings_options
def serve(
    *,
    config: _ConfigFile = None,
    print_config: Annotated[
        bool, Option("--print-config", help="Print every setting and where it came from; do not serve.")
    ] = False,
    **options: Any,
) -> None:
    """Options override environment variables, which override the file that --config names.

    Every setting is all of these: --max-streams 64, BGAN_MAX_STREAMS=64, and max_streams = 64 in the file.

    Examples: bgan serve;  bgan serve --models models --port 50051
    """
    resolved = resolve(options, config)
    if print_config:
        typer.echo(resolved.as_toml(), nl=False)
        return

    if not hasattr(signal, "SIGHUP"):
        raise StartError(_WINDOWS)
    from ..models import checker

    settings = resolved.settings
    if settings.workers == 1 and settings.models != SHIPPED:
        checker.prepare()  # it starts while this process loads its own libraries

    from ..server import server, supervisor

    main = server.serve(settings) if settings.workers == 1 else supervisor.supervise(settings)
    server.run(main, log_format=settings.log_format)


def health(
    server: Annotated[
        str | None, Option(help="The server's address.", show_default="localhost, port of BGAN_PORT or the config")
    ] = None,
    model: Annotated[
        str | None, Option(help="Ask for this model's health.", show_default="the server's own")
    ] = None,
    timeout: Annotated[
        float, Option(min=0.001, help="Seconds to wait for the answer; inf: any.", envvar="BGAN_TIMEOUT")
    ] = 3.0,
    timeout_seconds: Annotated[float | None, Option(min=0.001, hidden=True)] = None,
    config: _ConfigFile = None,
    json_file: JsonFile = None,
    tls: Annotated[
        bool, Option("--tls", help="Use TLS and trust the public authorities.", envvar="BGAN_TLS")
    ] = False,
    tls_ca: Annotated[
        Path | None,
        Option(
            help="Use TLS and trust the authorities in this PEM file.",
            envvar="BGAN_TLS_CA",
            show_default="the public ones; of the local server any certificate",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        Option(
            help="Use TLS and show this certificate, a PEM file.",
            envvar="BGAN_CLIENT_CERTIFICATE",
            show_default="none",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        Option(help="The certificate's private key.", envvar="BGAN_CLIENT_KEY", show_default="none"),
    ] = None,
    tls_server_name: Annotated[
        str | None,
        Option(
            help="The name to expect in the server's certificate.",
            envvar="BGAN_TLS_SERVER_NAME",
            show_default="that of the address",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        Option(
            help="A file with the token to call with.",
            envvar="BGAN_TOKEN_FILE",
            show_default="the variable BGAN_TOKEN",
        ),
    ] = None,
    plaintext_token: Annotated[
        bool, Option("--plaintext-token", help="Send the token to another machine without TLS too.")
    ] = False,
) -> None:
    """A probe for service managers, without a server's address for the one on this machine.

    Example: bgan health --server localhost:50051 --model digits
    """
    from ..server.health_check import TlsCheck, check_health, own_tls, refuse_plaintext

    seconds = timeout if timeout_seconds is None else timeout_seconds
    if isnan(seconds):
        raise BadParameter("nan is no time; use seconds above 0, or inf", param_hint="--timeout")
    if (tls_certificate is None) != (tls_key is None):
        raise BadParameter("--tls-certificate and --tls-key go together; name both")
    given: dict[str, Any] = {} if tls_server_name is None else {"server_name": tls_server_name}
    for name, path in (("ca", tls_ca), ("certificate", tls_certificate), ("key", tls_key)):
        if path is not None:
            from ..security.certificates import read_pem  # loads cryptography

            given[name] = read_pem(path)
    check, is_named = TlsCheck(**given) if tls or given else None, server is not None
    if server is None:
        settings = resolve({}, config).settings
        server = own_address(settings.host, settings.port)
        own = own_tls(settings, timeout_seconds=seconds)
        check = check if own is None else replace(own, **given)
    try:
        given_token = os.environ.get("BGAN_TOKEN", "") if token_file is None else token_file.read_text("ascii")
    except ValueError as error:
        raise TokenFileError(f"{token_file} holds no token") from error
    token = given_token.strip() or None
    if token is not None and check is None and is_named and not plaintext_token:
        refuse_plaintext(server)
    answer: dict[str, Any] = {"server": server, "model": model, "status": "SERVING", "reason": None}
    try:
        check_health(server, model, timeout_seconds=seconds, tls=check, token=token)
    except NotServingError as error:
        wrote_json({**answer, "status": error.status, "reason": str(error)}, json_file)
        raise
    if not wrote_json(answer, json_file):
        typer.echo(f"{server}: SERVING")


def top(
    address: Annotated[
        str | None,
        Argument(
            help="Where the server shows its metrics.",
            show_default="localhost, port of BGAN_METRICS_PORT or the config",
        ),
    ] = None,
    interval: Annotated[float, Option(min=0.1, max=3600, help="Seconds between updates.")] = 2.0,
    once: Annotated[bool, Option("--once", help="Print one update and exit.")] = False,
    config: _ConfigFile = None,
) -> None:
    """The server must show its metrics: bgan serve --metrics-port 9090. Ctrl-C exits.

    Examples: bgan top localhost:9090;  bgan top localhost:9090 --once
    """
    from rich.console import Console

    from ..telemetry.scrape import metrics_url
    from ..telemetry.top import own_metrics, watch

    target = own_metrics(resolve({}, config).settings) if address is None else address
    with suppress(KeyboardInterrupt):
        watch(metrics_url(target), Console(), interval_seconds=interval, once=once)


def generate(
    model: Annotated[str, Argument(help="An .onnx file, or the name of a model in the folder of models.")],
    output: Annotated[
        Path,
        Option(
            "--output",
            "-o",
            help=".png: a grid. .npz: packed bits and their origin. .npy: uint8 (n, c, h, w). .bits, .bin: packed "
            "bits alone, described in a .json beside them.",
        ),
    ],
    count: Annotated[int, Option("--count", "-n", help="How many images.")] = 64,
    seed: Annotated[int | None, Option(help="The stream's seed.", show_default="drawn")] = None,
    first_index: Annotated[int, Option(help="The index of the first image in the stream.")] = 0,
    label: Annotated[
        list[str] | None,
        Option(
            help="A class of a class-conditional model: its name, or its number from 0 if no class is named "
            "by a number; several take turns.",
            show_default="drawn, as often as in training",
        ),
    ] = None,
    folder: _Models = None,
    threads: Annotated[int, Option(min=0, max=1024, help="Cores to use.", show_default="all")] = 0,
    provider: _Provider = "cpu",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Run the same command again to resume a file that was interrupted. Memory does not grow with the count.

    Examples: bgan generate cnn-dbn --count 1000000 --seed 1 -o digits.npz;
    bgan generate models/digits.onnx -n 500000 --seed 1 --first-index 500000 -o second-half.bits
    """
    from rich.console import Console

    from ..generate.generate import GenerationRequest, open_model
    from ..generate.generate import generate as run

    request = GenerationRequest(
        output=output,
        count=count,
        seed=seed,
        first_index=first_index,
        labels=tuple(label or ()),
        overwrite=overwrite,
    )
    engine = open_model(model, _local_folder(folder, [model]), provider)
    origin = run(engine, request, Console(stderr=True), threads=threads)
    typer.echo(f"{count} images of {origin.model}, seed {origin.seed}, from index {first_index}", err=True)
    typer.echo(output)


def bulk(
    model: Annotated[str, Argument(help="An .onnx file, or the name of a model in the folder of models.")],
    output: Annotated[
        str,
        Option("--output", "-o", help="A folder, or a URL: s3://bucket/prefix, gs://..., whatever fsspec opens."),
    ],
    count: Annotated[int, Option("--count", "-n", help="How many images.")],
    seed: Annotated[int | None, Option(help="The stream's seed.", show_default="drawn")] = None,
    first_index: Annotated[int, Option(help="The index of the first image in the stream.")] = 0,
    label: Annotated[
        list[str] | None,
        Option(
            help="A class, as for bgan generate; several take turns.",
            show_default="drawn, as often as in training",
        ),
    ] = None,
    format_: Annotated[
        Literal["parquet", "npz", "bits"],
        Option(
            "--format",
            help="parquet: rows of index, seed, revision, label and packed bits. npz: as bgan generate writes it. "
            "bits: packed bits alone.",
        ),
    ] = "parquet",
    shard_images: Annotated[
        int | None, Option(help="Images of a shard.", show_default="about 64 MiB of packed bits")
    ] = None,
    workers: Annotated[
        int, Option(min=0, max=1024, help="Processes of this machine.", show_default="one for each core")
    ] = 0,
    ray: Annotated[
        str | None,
        Option(
            help="Have a Ray cluster make the shards: its address, auto, or local to start one here.",
            show_default="this machine's processes",
        ),
    ] = None,
    folder: _Models = None,
    provider: _Provider = "cpu",
) -> None:
    """The images are those of bgan generate, whoever makes them; the same command resumes what was stopped.

    Examples: bgan bulk cnn-dbn --count 100000000 --seed 1 --output digits;
    bgan bulk cnn-dbn --count 100000000 --seed 1 --output s3://bucket/digits --ray auto
    """
    from rich.console import Console

    from ..generate.bulk import BulkRequest
    from ..generate.bulk import bulk as run
    from ..generate.generate import open_model

    request = BulkRequest(
        output=output,
        count=count,
        seed=seed,
        first_index=first_index,
        labels=tuple(label or ()),
        format=format_,
        shard_images=shard_images,
        workers=workers,
        ray=ray,
        provider=provider,
    )
    plan = run(open_model(model, _local_folder(folder, [model]), provider), request, Console(stderr=True))
    spec = plan.spec
    text = (
        f"{count} images of {spec.model}, seed {spec.seed}, from index {first_index}, in {plan.shard_count} shards"
    )
    typer.echo(text, err=True)
    typer.echo(without_secrets(output))


def gallery(
    models: Annotated[
        list[str], Argument(metavar="MODEL...", help=".onnx files, or names of models in the folder of models.")
    ],
    output: Annotated[Path, Option("--output", "-o", help="The folder to write.")],
    folder: _Models = None,
    runtime: Annotated[
        Path | None,
        Option(help="The folder `dist` of npm's onnxruntime-web.", show_default="what `make browser` fetched"),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing gallery.")] = False,
) -> None:
    """The page of `bgan serve --http-port` as files for any web host: it computes the images itself.

    Example: bgan gallery mlp-dbn cnn-dbn --output site;  python3 -m http.server --directory site
    """
    from ..generate.gallery import GalleryRequest, write_gallery
    from ..generate.generate import open_model

    given: dict[str, Any] = {} if runtime is None else {"runtime": runtime}
    request = GalleryRequest(output=output, overwrite=overwrite, **given)
    local = _local_folder(folder, models)
    engines = [open_model(model, local) for model in dict.fromkeys(models)]
    size = write_gallery(engines, request)
    typer.echo(f"{', '.join(each.manifest.name for each in engines)}; {size / 1e6:.1f} MB", err=True)
    typer.echo(output)


def _local_folder(folder: str | None, models: list[str]) -> Path:
    """The folder to look models up in; of a URL the one that those not named by their path are fetched into."""
    if folder is None:
        return model_folder()
    if not is_url(folder):
        return Path(folder)
    from ..models.remote import Mirror

    settings = resolve({}, None).settings
    named = [model for model in models if not Path(model).is_file()]
    mirror = Mirror(folder, settings.model_cache, max_bytes=settings.model_cache_bytes, models=named)
    if named:
        mirror.sync()
    return mirror.folder
