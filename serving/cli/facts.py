"""What `bgan doctor` says of serving: the class of the CPU, what computes, and models. It starts nothing."""

import os
from pathlib import Path
from typing import Any


def facts() -> dict[str, dict[str, Any]]:
    """Facts by name, under titles; without the packages of serving those that need none."""
    try:
        from ..config.settings import model_folder
        from ..config.stores import without_secrets
        from ..models.engine import cpu_class
    except ModuleNotFoundError as error:
        return {"serving": {"missing": error.name}}
    import onnxruntime

    folder = Path(os.environ.get("BGAN_MODELS") or model_folder())
    return {
        "machine": {"cpu_class": cpu_class()},
        "serving": {
            "providers": onnxruntime.get_available_providers(),
            "models": without_secrets(os.environ.get("BGAN_MODELS") or str(folder)),
            "files": sorted(path.name for path in folder.rglob("*.onnx")) if os.path.isdir(folder) else [],
            "model_cache": _model_cache(),
        },
    }


def _model_cache() -> str:
    from ..errors import StoreError
    from ..models.remote import own_cache

    try:
        return os.environ.get("BGAN_MODEL_CACHE") or str(own_cache())
    except StoreError as error:
        return str(error)
