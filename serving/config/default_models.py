"""Where models are when nobody says: in ./models, or else among those that come with bgan."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "shipped"
"""The folder of the models that come with bgan."""
_OWN = Path("models")


def model_folder() -> Path:
    """./models where it is there, as `bgan export` makes it, else the models that come with bgan."""
    return _OWN if _OWN.exists() else SHIPPED


def described(folder: Path) -> str:
    """Which models those of a folder are, for the log."""
    return f"the models {'that come with bgan,' if folder == SHIPPED else 'in'} {folder}"
