"""Writes the gallery as a folder for any web host: the page, models, and what computes their images in it."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from ..config.gallery import GALLERY, RUNTIME, RUNTIME_FILES, lack_of_runtime
from ..errors import GenerationError
from ..models.engine import Engine

REFERENCE_IMAGES = 1024
"""Images of seed 0 that are written beside each model: shown at once, and compared with what a page computes."""
_MODELS = "models.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryRequest:
    """Where to write a gallery. Raises GenerationError where that cannot be, or something is missing."""

    output: Path
    runtime: Path = GALLERY / RUNTIME
    """A folder with onnxruntime-web's files."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        output = self.output
        if lack := lack_of_runtime(self.runtime, "--runtime"):
            raise GenerationError(lack)
        if not output.absolute().parent.is_dir():
            raise GenerationError(f"--output: the folder {output.parent} does not exist")
        if output.is_symlink() or (output.exists() and not output.is_dir()):
            raise GenerationError(f"--output {output} is no folder; name one")
        if output.is_dir() and any(output.iterdir()):
            if not (output / _MODELS).is_file():
                raise GenerationError(f"{output} holds other things than a gallery; name another folder")
            if not self.overwrite:
                raise GenerationError(f"{output} exists; --overwrite replaces it")


def write_gallery(engines: Sequence[Engine], request: GalleryRequest) -> int:
    """Write the folder, whole or not at all, and return its size in bytes.

    Raises GenerationError, and ModelFileError where a model's file changed meanwhile.
    """
    output = request.output
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.absolute().parent))
        try:
            _write(folder, engines, request.runtime)
            folder.chmod(0o755)
            if output.exists():
                shutil.rmtree(output)
            folder.rename(output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise GenerationError(f"{output} cannot be written ({error.strerror})") from error
    return sum(path.stat().st_size for path in output.rglob("*") if path.is_file())


def _write(folder: Path, engines: Sequence[Engine], runtime: Path) -> None:
    for path in GALLERY.glob("*.*"):
        shutil.copyfile(path, folder / path.name)
    page = folder / "index.html"
    page.write_text(page.read_text("utf-8").replace('content="server"', 'content="folder"'), "utf-8")
    (folder / RUNTIME).mkdir()
    licences = [path.name for path in runtime.glob("*.txt")]
    for name in (*RUNTIME_FILES, *licences):
        shutil.copyfile(runtime / name, folder / RUNTIME / name)
    (folder / "models").mkdir()
    for engine in engines:
        with engine.open_file() as file, (folder / "models" / f"{engine.revision}.onnx").open("wb") as copy:
            shutil.copyfileobj(file, copy)
        bits = engine.sample(0, 0, REFERENCE_IMAGES).packed_images
        (folder / "models" / f"{engine.revision}.bits").write_bytes(bits)
    models = [{"model": _manifest(each), "revision": each.revision} for each in engines]
    (folder / _MODELS).write_text(json.dumps({"models": models}, indent=1), "utf-8")


def _manifest(engine: Engine) -> object:
    return MessageToDict(
        engine.manifest, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
