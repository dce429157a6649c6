"""Where the gallery's files are: those of the page, and those that compute in it."""

from pathlib import Path

GALLERY = Path(__file__).parents[2] / "clients" / "browser"
"""The page's folder, in a checkout as in a wheel."""
RUNTIME = "onnxruntime-web"
"""The folder in it of what computes in the page: `make browser` fetches it, and it is not in the wheel."""
