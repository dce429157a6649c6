"""Where the gallery's files are: those of the page, and those that compute in it."""

from pathlib import Path

GALLERY = Path(__file__).parents[2] / "clients" / "browser"
"""The page's folder, in a checkout as in a wheel."""
RUNTIME = "onnxruntime-web"
"""The folder in it of what computes in the page: `make browser` fetches it, and it is not in the wheel."""
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def lack_of_runtime(folder: Path, option: str) -> str:
    """What a folder of onnxruntime-web's files lacks, and which option names another; empty if nothing."""
    missing = next((name for name in RUNTIME_FILES if not (folder / name).is_file()), None)
    if missing is None:
        return ""
    return (
        f"{folder} has no {missing}: `make browser` fetches it, or name the folder `dist` of "
        f"npm's package onnxruntime-web with {option}"
    )
