"""Settings as the `bgan train` that has them, and as the name of its run."""

import re
import shlex
from pathlib import Path
from typing import Any

from ..common.entry_points import is_given
from ..common.errors import ConfigError
from .images import HELD_OUT_FILES
from .presets import PRESETS, preset_values
from .setting import option
from .training import SETTINGS, TrainingConfig, with_followed

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # also of files, and what a server takes
_FILES = ("data", *HELD_OUT_FILES)
_WHERE = {"device", "capture", "data_dir", "data_digest", *_FILES}


def training_command(config: TrainingConfig, name: str) -> str:
    """The shortest `bgan train` that has these settings, but for where it runs.

    A comment says what of it was given from Python, where no command can give it.
    """
    preset = config.preset or "paper"  # whose settings are those of none
    wanted = config.settings()
    kind = {"neuron": wanted["neuron"], "network": wanted["network"]}
    given = {**preset_values(preset, **kind), "preset": config.preset, **kind}
    added: dict[str, Any] = {}
    left_out = _WHERE | (set() if config.data.path is None else {"dataset"})
    for setting in wanted:  # in this order what follows from a setting comes after it
        if setting not in left_out and with_followed(given | added)[setting] != wanted[setting]:
            added[setting] = wanted[setting]
    if PRESETS[preset].is_conditional and wanted["clusters"] is None:  # else the data would decide it
        added["conditional"] = wanted["conditional"]
    own = preset_values(preset, neuron=kind["neuron"]).get("network", SETTINGS["network"].default)
    first = {
        "preset": preset,
        "neuron": None if kind["neuron"] == "dbn" else kind["neuron"],
        "network": None if kind["network"] == own else kind["network"],
    }
    images = {**data_options(config), **config.data.options.changed()}
    command = shlex.join(["bgan", "train", *train_options(first | added | images), "--name", name])
    named = [wanted["network"], *wanted["discriminator"].split("+"), wanted["objective"]]
    parts = [each for each in named if is_given(each)]
    if config.data.path is None and config.data.digest is not None:
        parts.append(f"the images of {config.data.dataset}")
    return f"{command}  # by bgan.trainer.train, which was given {', '.join(parts)}" if parts else command


def default_name(config: TrainingConfig) -> str:
    """The name of a run that was given none: the settings that people tell runs apart by, joined by hyphens."""
    own = config.settings()
    usual = with_followed({name: own[name] for name in ("network", "gates")})
    usual |= preset_values(config.preset, neuron=own["neuron"], network=own["network"])
    parts = [
        config.preset or "",
        own["dataset"],
        own["network"],
        "" if own["discriminator"] == usual["discriminator"] else own["discriminator"],
        "" if own["width"] == usual["width"] else f"width{own['width']:g}",
        "" if own["gates"] is None else f"gates{own['gates']}-rate{own['gate_rate']:g}",
        "" if own["gate_by"] == usual["gate_by"] else f"by-{own['gate_by']}",
        "" if own["hidden_neuron"] is None else f"hidden-{own['hidden_neuron']}",
        "" if own["refine"] is None else f"refine-{Path(own['refine']).name}",
        own["neuron"],
        own["objective"],
        "" if own["discriminator_norm"] == "none" else own["discriminator_norm"],
        "" if own["estimator"] == usual["estimator"] else own["estimator"],
        _classes(own),
        "" if own["augment"] == usual["augment"] else own["augment"],
        f"seed{own['seed']}",
    ]
    return "-".join(re.sub("[:+]", "-", part) for part in parts if part)


def _classes(own: dict[str, Any]) -> str:
    """What the classes of these settings are, as part of a name."""
    if own["clusters"] is not None:
        return f"clusters-{own['clusters']}"
    return "conditional" if own["conditional"] else ""


def check_name(name: str) -> None:
    """Raise ConfigError unless a run or a model may be called so."""
    if not _NAME.fullmatch(name):
        possible = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:128] or "mine"
        raise ConfigError(
            f"the name {name!r} cannot be a model's, which is at most 128 of A-Z, a-z, 0-9, '_', '-' and '.', and "
            f"begins with neither '-' nor '.'; choose another, such as --name {possible}"
        )


def data_options(config: TrainingConfig) -> dict[str, Any]:
    """The options that name files or folders of images, without where those lie."""
    settings = config.settings()
    return {name: Path(settings[name]).name for name in _FILES if settings[name] is not None}


def train_options(settings: dict[str, Any]) -> list[str]:
    """Settings of a training as options of `bgan train`; None is left out."""
    options = []
    for name, value in settings.items():
        if isinstance(value, bool):
            options.append(f"--{'' if value else 'no-'}{option(name)}")
        elif value is not None:
            options += [f"--{option(name)}", str(value)]
    return options
