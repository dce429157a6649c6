"""Where models are by default: in ./models, or else among those that come with bgan."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "shipped"
"""The folder of the models that come with bgan."""
WHICH_FOLDER = "./models if it exists, else the shipped models"
"""What `model_folder` gives, in words."""
_OWN = Path("models")


def model_folder() -> Path:
    """./models, where `bgan export` writes, if it exists, else the models that come with bgan."""
    return _OWN if _OWN.exists() else SHIPPED


def described(folder: Path) -> str:
    """Which models those of a folder are, for the log."""
    return f"the models {'that come with bgan,' if folder == SHIPPED else 'in'} {folder}"
