"""What a file is that bgan does not read, told from how it begins, and the step that makes it readable."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

START_BYTES = 1024  # of a file, to tell what it is

_READ = {
    b"\x93NUMPY": ".npy",
    b"PK": ".npz or zip",
    b"\x89HDF": ".h5",
    b"MATLAB": ".mat",
    b"PAR1": "parquet",
    b"\0\0\x08": "idx",
}
_IMAGES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"RIFF....WEBP": ".webp",
    b"P[1-6]\\s": ".pnm",
}
_ARROW = {
    b"ARROW1": "open_file",
    b"\xff{4}..\0\0": "open_stream",
}  # the latter as Hugging Face's datasets keep theirs
_PICKLE = "which could run any code when read"
_UNPACKED = "unpack it, and name what was in it"
_TAR = "a tar archive; unpack it with tar -xf, and name the folder"
_OTHERS = {
    b"\x80\x02\x8a\x0al\xfc\x9c": f"a file of torch.save, {_PICKLE}; if you trust it, numpy.save its tensor",
    b"\x80[\x02-\x05]": f"a Python pickle, {_PICKLE}; if you trust it, save the images in it with numpy.save",
    b".{257}ustar": _TAR,
    b"BZh": f"compressed with bzip2; {_UNPACKED}",
    b"\xfd7zXZ": f"compressed with xz; {_UNPACKED}",
    b"[(]\xb5/\xfd": f"compressed with zstd; {_UNPACKED}",
    b"7z\xbc\xaf": f"a 7z archive; {_UNPACKED}",
    b"Rar!": f"a rar archive; {_UNPACKED}",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; git lfs pull fetches that",
    b"\\s*<(!doctype|html|\\?xml)": "a page of the web or another text, not the data; was it downloaded whole?",
    b"MThd": "a MIDI file; save pianorolls of it with numpy.save, for example through pretty_midi",
    b".{128}DICM": "a DICOM file; save its pixels with numpy.save, for example through pydicom",
    b"SIMPLE  =": "a FITS file; save its pixels with numpy.save, for example through astropy",
    b"# Created by Octave": "a text file of Octave; save it there with save -v7 FILE.mat X",
}


def named(start: bytes, path: object = "FILE") -> str | None:
    """What a file is that begins like this, and what to do about it; None if it is not known.

    The steps that are commands of Python write images.npy or images.npz into the current folder.
    """
    if start.startswith(b"\x1f\x8b"):
        return zipped(start)
    if opened := _of(start, _ARROW):
        return f"an Arrow file; make it parquet: {_to_parquet(Path(str(path)), opened)}"
    for pattern, what in _OTHERS.items():
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return what
    return _numbers(start, path)


def image_suffix(start: bytes) -> str | None:
    """The usual suffix of an image file that begins like this; None if it is no image."""
    return _of(start, _IMAGES)


def sparse_parts(names: Iterable[str], path: Path) -> str | None:
    """What an .npz with the parts of sparse matrices is, and what to do; None for other arrays."""
    parts = set(names)
    if any(name.endswith("_csc_indptr") for name in parts):
        return "a song of pypianoroll; docs/data.md (Other files) has the lines that save its bars as one array"
    if {"data", "indices", "indptr", "format"} <= parts or {"data", "row", "col", "format"} <= parts:
        step = f"np.save('images.npy', sparse.load_npz({str(path)!r}).toarray())"
        return (
            f"a sparse matrix of scipy; make it an array: {_python('numpy as np, scipy.sparse as sparse', step)}"
        )
    return None


def other_files(names: Sequence[str], start_of: Callable[[str], bytes], path: Path) -> str:
    """What a folder or archive without image files holds, to be put behind a message about it."""
    if not names:
        return ": it is empty, but for what is hidden"
    suffixes = Counter(Path(name).suffix.lower() or "without a suffix" for name in names)
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(4))
    first = min(names)
    start = start_of(first)
    if suffix := image_suffix(start):
        return (
            f" by their names, but {first} is one: let the names of such files end in {suffix} (it holds {listed})"
        )
    kind = _of(start, _READ) or ("text" if is_table(start) else None)
    if kind == ".npy" and len(names) > 1:
        return f", but {listed}; if each is one image, join them: {joined(path)}"
    if kind is not None:
        return (
            f", but {listed}, which are read one by one: name {path / first if path.is_dir() else 'one of them'}"
        )
    if what := named(start, path if _of(start, _ARROW) else path / first):  # all shards are one set
        return f", but {listed}; {first} is {what}"
    return f", but {listed}"


def joined(path: Path) -> str:
    """The command that joins .npy files of a folder or zip, each one image, to images.npy."""
    if path.is_dir():
        files = f"[np.load(f) for f in sorted(pathlib.Path({str(path)!r}).rglob('[!.]*.npy'))]"
        return _python("numpy as np, pathlib", f"np.save('images.npy', np.stack({files}))")
    images = "[z[n] for n in sorted(z.files) if '__MACOSX' not in n]"
    return _python("numpy as np", f"z = np.load({str(path)!r}); np.save('images.npy', np.stack({images}))")


def from_torch(path: Path) -> str:
    """What a file of torch.save is, and the command that saves its tensor to images.npy."""
    step = f"np.save('images.npy', torch.load({str(path)!r}, weights_only=True).numpy())"
    return f"a file of torch.save; of a tensor: {_python('numpy as np, torch', step)}"


def _of(start: bytes, patterns: dict[bytes, str]) -> str | None:
    return next((what for pattern, what in patterns.items() if re.match(pattern, start, re.DOTALL)), None)


def _python(modules: str, code: str) -> str:
    return f'python -c "import {modules}; {code}"'


def zipped(start: bytes) -> str | None:
    """What a file compressed with gzip is, and what to do; None if it is read, or damaged."""
    inner = unzipped(start)
    if inner.startswith(b"\0\0") or not inner:
        return None
    if re.match(b".{257}ustar", inner, re.DOTALL):
        return _TAR
    kind = _of(inner, _READ)
    if is_table(inner):
        return None
    return f"compressed with gzip{f' (it holds {kind})' if kind else ''}; {_UNPACKED}: gunzip --keep"


def unzipped(start: bytes) -> bytes:
    """How what is compressed with gzip begins; empty if it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(start)
    except zlib.error:
        return b""


def is_table(start: bytes) -> bool:
    """Whether a text that begins like this is a table of numbers between spaces, an image a line."""
    line = start.partition(b"\n")[0].decode("latin-1")
    return "," not in line and _is_row(line)


def _to_parquet(path: Path, opened: str) -> str:
    """The command that writes an Arrow file, or all of a folder, as images.parquet."""
    where = f"pathlib.Path({str(path)!r})"
    files = f"sorted({where}.rglob('*.arrow'))" if path.is_dir() else f"[{where}]"
    tables = f"pa.concat_tables(pa.ipc.{opened}(pa.memory_map(str(f))).read_all() for f in {files})"
    return _python("pathlib, pyarrow as pa, pyarrow.parquet as pq", f"pq.write_table({tables}, 'images.parquet')")


def _numbers(start: bytes, path: object) -> str | None:
    """What to do about numbers as text, an image a line, perhaps below names of columns and behind labels."""
    lines = start.decode("latin-1").splitlines()
    is_table = [_is_row(line) for line in lines[:2]]
    if not any(is_table):
        return None
    comma = ", delimiter=','" if "," in lines[0] else ""
    head = "" if is_table[0] else ", skiprows=1"
    code = f"x = np.loadtxt({str(path)!r}{comma}{head})"
    if head and lines[0].lower().startswith("label"):
        code += "; np.savez('images.npz', images=x[:, 1:], labels=x[:, 0])"
    else:
        code += "; np.save('images.npy', x)"
    return f"a table of numbers as text; with an image on each line: {_python('numpy as np', code)}"


def _is_row(line: str) -> bool:
    values = line.replace(",", " ").split()
    return len(values) > 3 and all(re.fullmatch(r"[-+.\deE]+", value) for value in values)
