"""Runs the benchmarks, or those that are named; prints a table and, as the last line, the same as JSON."""

import argparse
import json
import os
import platform
import re
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import calls, generating, graph, layers, memory, reading, routing, startup, streaming, training, triton

_MODULES = (training, reading, startup, graph, routing, generating, streaming, calls, layers, memory)
_PARTS = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
_VERSIONS = ("bgan", "torch", "onnxruntime", "grpcio", "protobuf", "numpy", "typer")
_FLAGS = ("avx", "avx2", "avx512f", "avx512_vnni", "amx_tile")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(_PARTS)}; all of them by default")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in _PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(_PARTS)}")
    figures = [figure for part in options.parts or _PARTS for figure in _measured(part)]
    circumstances = _circumstances()
    (_print_markdown if options.markdown else _print_table)(figures, circumstances)
    values = {figure.name: None if figure.value is None else round(figure.value, 4) for figure in figures}
    print(json.dumps({**circumstances, "figures": values}))


def _measured(part):
    start = time.monotonic()
    print(f"measuring {part} ...", file=sys.stderr)
    yield from _PARTS[part].measure()
    print(f"measured {part} in {time.monotonic() - start:.0f} s", file=sys.stderr)


def _print_table(figures, circumstances):
    table = Table("measure", "value", "unit", "aim")
    for figure in figures:
        table.add_row(figure.name, _value(figure), figure.unit, figure.bound)
    console = Console(width=130)
    console.print(_sentence(circumstances), highlight=False)
    console.print(table)


def _print_markdown(figures, circumstances):
    print(_sentence(circumstances), "", "| measure | value | aim |", "| --- | --- | --- |", sep="\n")
    for figure in figures:
        print(f"| {figure.name} | {_value(figure)} {figure.unit} | {figure.bound} |")


def _value(figure):
    if figure.value is None:
        return "-"
    return f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"


def _sentence(circumstances):
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items() if number)
    return (
        f"{circumstances['date']}: {circumstances['cores']} cores of {circumstances['cpu']} "
        f"({', '.join(circumstances['flags'])}), load {circumstances['load']} before; {versions}."
    )


_LOAD = round(os.getloadavg()[0], 2)  # before anything is measured


def _circumstances():
    flags = _cpuinfo("flags").split()
    versions = {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "cpu": _cpuinfo("model name"),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "load": _LOAD,
        "versions": {**versions, "nvidia-pytriton": triton.version()},
    }


def _cpuinfo(key):
    found = re.search(rf"^{key}\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else ""


main()
