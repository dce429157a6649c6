"""Options of commands that follow from settings, and those that several commands share."""

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..common.errors import ConfigError, DataError, UserError
from ..common.files import check_writable, write_json
from ..config.images import HELD_OUT_FILES, WHICH_DATA_DIR, DatasetSpec, ImageOptions, name_of
from ..config.presets import shown_default
from ..config.setting import Field, fields_of, option
from ..config.training import RENAMED_SETTINGS, SETTINGS

_DATA_DIR = "BGAN_DATA_DIR"
Command = TypeVar("Command", bound=Callable[..., None])
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder where data sets by name are kept or downloaded to.",
        envvar=_DATA_DIR,
        show_default=WHICH_DATA_DIR,
    ),
]
RunName = Annotated[str | None, typer.Argument(help="A run's name or folder.", show_default="the newest run")]
BinarizationName = Annotated[
    str | None, typer.Option(help="threshold or bernoulli.", show_default="bernoulli for sbn, else threshold")
]
DeviceName = Annotated[
    str,
    typer.Option(
        help="Where torch computes: auto (a GPU if there is one), cpu, cuda, ...; model files use the CPU."
    ),
]
RunsDir = Annotated[Path, typer.Option(help="The folder that holds the runs.", envvar="BGAN_RUNS_DIR")]
_WIDE = 24  # characters; more choices than that are in the help alone


def with_settings(
    panels: dict[str, type], *, without: str | None = None, shown: dict[str, str] | None = None
) -> Callable[[Command], Command]:
    """Add an option for each setting of some groups, by the title of their panel in the help, but for one.

    The command, which takes any keyword, asks `given_settings` for those that were given. `shown` says in
    words what a default is where the command has one of its own.
    """

    def add(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        parameters = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        for panel, group in panels.items():
            for field in fields_of(group):
                if field.setting.is_option and field.name != without:
                    parameters += _parameters(field, panel, (shown or {}).get(field.name))
        command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return add


def given_settings(context: typer.Context) -> dict[str, Any]:
    """The options that were given, by name; one in an old spelling by its new name, with a warning."""
    given = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name in {"COMMANDLINE", "ENVIRONMENT"}:
            given[name] = _as_setting(name, value)
    for old in RENAMED_SETTINGS.keys() & given.keys():
        new = RENAMED_SETTINGS[old]
        warn(f"--{option(old)} is now --{option(new)}; the old spelling goes with the next release")
        given.setdefault(new, given.pop(old))
    return given


def _as_setting(name: str, value: Any) -> Any:
    """The value of an option as its setting has it: several in one text."""
    if isinstance(value, Path):
        return str(value)
    field = SETTINGS.get(RENAMED_SETTINGS.get(name, name))
    if isinstance(value, list) and field is not None and field.setting.separator is not None:
        return field.setting.separator.join(value)
    return value


def image_options(given: dict[str, Any]) -> ImageOptions:
    """The options of reading images among those given. Raises ConfigError where one is wrong."""
    names = {field.name for field in fields_of(ImageOptions)}
    return ImageOptions(**{name: value for name, value in given.items() if name in names})


def named_images(given: dict[str, Any]) -> DatasetSpec | None:
    """The file, folder or data set that is named among the options given. Raises ConfigError where two are."""
    if "data" in given:
        if "dataset" in given:
            raise ConfigError("give either --dataset, a data set by name, or --data, a file or folder of your own")
        path = Path(given["data"]).absolute()
        return DatasetSpec(dataset=name_of(path), path=str(path), **held_out(given), options=image_options(given))
    if "dataset" in given:
        named = {"dataset": given["dataset"], "data_dir": given.get("data_dir")}
        return DatasetSpec(**named, **held_out(given), options=image_options(given))
    return None


def held_out(given: dict[str, Any]) -> dict[str, Any]:
    """What is held out of the images that are named. Paths are absolute, so that a run finds them again."""
    paths = {name: str(Path(given[name]).absolute()) for name in HELD_OUT_FILES if name in given}
    for name, path in paths.items():  # before a training, not at its end
        if not Path(path).exists():
            raise DataError(f"{option(name)}: there is no file or folder {path}")
    return {name: given[name] for name in ("validation_images",) if name in given} | paths


def writable(parameter: typer.CallbackParam, file: Path | None) -> Path | None:
    """A callback for --picture and --json, which runs before the command's work.

    Raises OSError where the file cannot be written, and UserError where it is there and holds something else.
    """
    if file is None or str(file) == "-":
        return file
    check_writable(file)
    if file.is_file():
        what, beginnings = ("PNG", (b"\x89PNG",)) if parameter.name == "picture" else ("JSON", (b"{", b"["))
        with file.open("rb") as content:
            found = content.read(4)
        if found and not found.startswith(beginnings):
            raise UserError(f"{file} is there and holds something else than {what}; name another file")
    return file


JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="[FILE]",
        help="Print JSON instead, or write it to this file.",
        show_default=False,
        callback=writable,
    ),
]


def wrote_json(content: Any, file: Path | None) -> bool:
    """Write what was measured as JSON to a file, if one is named; True where "-" printed it, instead of tables."""
    if file is None:
        return False
    if str(file) == "-":
        typer.echo(json.dumps(content, indent=2))
        return True
    write_json(file, content)
    return False


def warn(text: str) -> None:
    """A warning for the user, on stderr."""
    typer.secho(f"warning: {text}", fg=typer.colors.YELLOW, err=True)


def note(text: str) -> None:
    """What is worth knowing beside a result, on stderr."""
    typer.echo(text, err=True)


def _parameters(field: Field, panel: str, shown: str | None) -> list[inspect.Parameter]:
    """The option of a setting, and a hidden one for its old spelling."""
    setting = field.setting
    shown = shown or setting.shown_default or shown_default(field.name)
    default = None if shown or field.default is MISSING else field.default
    settled: dict[str, Any] = {
        "help": setting.help,
        "metavar": _metavar(field.choices),
        "envvar": _DATA_DIR if field.name == "data_dir" else None,
        "show_default": shown or default is not None,
        "rich_help_panel": panel,
        "autocompletion": completion(field.choices or setting.suggestions),
    }
    found = [_parameter(field, field.name, default, **settled)]
    if setting.old_name is not None:
        found.append(_parameter(field, setting.old_name, None, hidden=True))
    return found


def _parameter(field: Field, name: str, default: Any, **settled: Any) -> inspect.Parameter:
    spelling = f"--{option(name)}" + (f"/--no-{option(name)}" if field.type is bool else "")
    kind: Any = field.type
    if field.setting.separator is not None:
        kind = list[field.type]  # type: ignore[name-defined]
        default = None if default is None else [default]
    annotation: Any = Annotated[kind | None, typer.Option(spelling, **settled)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _metavar(choices: tuple[str, ...]) -> str | None:
    """What stands for the value in the help: the choices where they are few."""
    if not choices:
        return None
    shown = f"<{'|'.join(choices)}>"
    return shown if len(shown) <= _WIDE else "<choice>"


def completion(values: Iterable[str]) -> Callable[[str], list[str]]:
    """Completes a value to those that begin with it."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]
