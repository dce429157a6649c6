"""Runs every model of a folder in every runtime that can be had here; prints how many images have other bits."""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime

from bgan.serving.models.engine import load_engine
from bgan.serving.models.manifest import input_specs, is_integer

from .runtimes import PARTS

ROOT = Path(__file__).parents[2]
_ROWS = 128  # of a batch


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="make portability", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--models", type=Path, default=ROOT / "serving" / "shipped", help="the folder of models")
    parser.add_argument("--tools", type=Path, default=ROOT / ".tools" / "portability", help="where runtimes lie")
    parser.add_argument("--count", type=int, default=100_000, help="images of each model")
    parser.add_argument("--slow-count", type=int, default=512, help="how many of them where it takes long")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    paths = sorted(options.models.resolve().glob("*.onnx"))
    engines = {path: load_engine(path) for path in paths}
    expected = {path: engine.sample(0, 0, options.count).packed_images for path, engine in engines.items()}
    print(f"{datetime.now(UTC):%Y-%m-%d}: {_here()}.\n")
    print(*_models(engines, expected, options), "", sep="\n")
    print("| runtime | images |", *(f"{engine.manifest.name} |" for engine in engines.values()))
    print("| --- | ---: |", *["---: |"] * len(engines))
    for part in options.parts or PARTS:
        try:
            for runtime in PARTS[part](options.tools.resolve()):
                count = min(options.count, options.slow_count if runtime.is_slow else options.count)
                cells = [difference(runtime, path, engines[path], expected[path], count) for path in paths]
                print(f"| {runtime.title} | {count:,} |", *(f"{cell} |" for cell in cells), flush=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{part} cannot be had here: {error}", file=sys.stderr)


def _here():
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, onnxruntime {onnxruntime.__version__}"
    flags = set(Path("/proc/cpuinfo").read_text().split()) & {"avx2", "avx512f", "avx512_vnni", "amx_int8"}
    return f"{platform.machine()} with {', '.join(sorted(flags)) or 'no AVX2'}; {platform.system()}, {versions}"


def _models(engines, expected, options):
    yield f"| model | bits decided by | SHA-256 of the bits of {options.count:,} images |"
    yield "| --- | --- | --- |"
    for path, engine in engines.items():
        arithmetic = "integers" if is_integer(engine.manifest) else "floats"
        yield f"| {engine.manifest.name} | {arithmetic} | `{hashlib.sha256(expected[path]).hexdigest()}` |"


def difference(runtime, path, engine, expected, count):
    """How many images, and in brackets bits, differ."""
    started = time.monotonic()
    try:
        found = np.frombuffer(b"".join(packed_images(runtime, path, engine, count)), np.uint8)
    except (BrokenPipeError, EOFError):
        return "fails"
    wanted = np.frombuffer(expected, np.uint8)[: len(found)]
    bits = np.bitwise_count(found ^ wanted).reshape(count, -1).sum(1, dtype=np.int64)
    print(f"{runtime.title}: {path.name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return f"{np.count_nonzero(bits):,} ({bits.sum():,})" if bits.any() else "0"


def packed_images(runtime, path, engine, count):
    """The first images of seed 0, packed, a batch at a time. Raises OSError or EOFError where it ends early."""
    inputs = {spec.name: [spec.dtype, *spec.row_shape] for spec in input_specs(engine.manifest)}
    task = {"package": runtime.package, "path": str(path), "settings": runtime.settings, "inputs": inputs}
    with subprocess.Popen(
        [*runtime.command, json.dumps(task)],
        cwd=runtime.folder,
        env={**os.environ, "PYTHONPATH": str(runtime.folder), "OMP_NUM_THREADS": "1", **runtime.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        print(process.stdout.readline().decode().rstrip(), file=sys.stderr)
        for first in range(0, count, _ROWS):
            rows = min(_ROWS, count - first)
            noise = engine.noise.draw(0, first, rows).feeds(engine.image_shape)
            batch = rows.to_bytes(4, "little") + b"".join(noise[name].tobytes() for name in inputs)
            process.stdin.write(batch)
            process.stdin.flush()
            answer = process.stdout.read(rows * engine.packed_bytes)
            if len(answer) < rows * engine.packed_bytes:
                raise EOFError
            yield answer


if __name__ == "__main__":
    main()
