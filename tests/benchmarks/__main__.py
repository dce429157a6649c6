"""Runs all benchmarks; prints a table and, as the last line, the same as JSON."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version

from rich.console import Console
from rich.table import Table

from . import memory, startup, streaming, training

_VERSIONS = ("bgan", "torch", "onnxruntime", "grpcio", "numpy", "typer")


def main() -> None:
    """Measure, and print."""
    figures = []
    for module in (training, startup, streaming, memory):
        print(f"measuring {module.__name__.rpartition('.')[2]} ...", file=sys.stderr)
        figures += module.measure()
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
