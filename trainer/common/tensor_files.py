"""Files of tensors that show damage: safetensors, with their digest in a JSON sidecar.

The sidecar is written last, so tensors that have one are complete.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from .errors import CheckpointError
from .files import write_atomically, write_json


def save_tensors(path: Path, tensors: dict[str, Tensor], sidecar: dict[str, Any]) -> str:
    """Write both files and return the digest. Raises OSError, and then leaves the old ones."""
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(path, content)
    write_json(path.with_suffix(".json"), {**sidecar, "sha256": digest})
    return digest


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the sidecar, with "sha256" in it. Raises CheckpointError unless both are whole."""
    try:
        content = path.read_bytes()
        sidecar: dict[str, Any] = json.loads(path.with_suffix(".json").read_bytes())
        digest = sidecar["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"checkpoint {path} is truncated or damaged: its digest is not that of its sidecar")
    return safetensors.torch.load(content), sidecar


def tensors_under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
