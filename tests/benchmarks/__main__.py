"""Runs the benchmarks, or those that are named; prints a table and, as the last line, the same as JSON."""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version

from rich.console import Console
from rich.table import Table

from . import calls, memory, startup, streaming, training

_PARTS = {module.__name__.rpartition(".")[2]: module for module in (training, startup, streaming, calls, memory)}
_VERSIONS = ("bgan", "torch", "onnxruntime", "grpcio", "numpy", "typer")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], metavar="part", help=f"of {', '.join(_PARTS)}")
    figures = []
    for part in parser.parse_args().parts or _PARTS:
        print(f"measuring {part} ...", file=sys.stderr)
        figures += _PARTS[part].measure()
    table = Table("measure", "value", "unit", "bound")
    for figure in figures:
        value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"
        table.add_row(figure.name, value, figure.unit, figure.bound)
    Console(width=100).print(table)
    print(json.dumps({**_circumstances(), "figures": {figure.name: round(figure.value, 4) for figure in figures}}))


def _circumstances():
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
    }


main()
