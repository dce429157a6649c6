"""The report of a reproduction on disk: Markdown, the same as one HTML page, its figures and its numbers."""

import json
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ...common.files import write_atomically, write_json
from ...evaluation.generator import TrainedGenerator
from ...evaluation.samples import Samples
from ...training.run import Run
from ..figures import Panel, data_url, grid_figure, histogram_figure
from .claims import verdicts
from .document import Column, Grid, Histograms, Part, Table, report_parts
from .results import Outcome, Results

_SHOWN = 64
_FIGURES = "figures"
_RESULTS = "report.json"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:85%;margin:1em 0;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;padding:0 .2em}"
)


def write_report(results: Results, folder: Path) -> Path:
    """Write report.md, report.html, report.json and figures/ beside runs/; report.md is returned."""
    parts = report_parts(results)
    _draw([part for part in parts if isinstance(part, Grid | Histograms)], folder)
    claims = [verdict._asdict() for verdict in verdicts(results)]
    write_json(folder / _RESULTS, {"verdicts": claims, **results.to_dict()})
    return _write_pages(parts, folder)


def rewrite_pages(folder: Path) -> Path:
    """Write report.md and report.html again from report.json and the figures, where the runs may be gone."""
    content = json.loads((folder / _RESULTS).read_bytes())
    del content["verdicts"]
    return _write_pages(report_parts(Results.from_dict(content)), folder)


def circumstances() -> str:
    """Today, this machine, and the versions that compute here."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("bgan", "torch", "numpy"))
    return f"{datetime.now(UTC).date()}, {platform.machine()}, {versions}, Python {platform.python_version()}"


def _write_pages(parts: Sequence[Part], folder: Path) -> Path:
    path = folder / "report.md"
    text = "\n\n".join(_markdown(part) for part in parts) + "\n"
    write_atomically(path, text.encode())
    write_atomically(folder / "report.html", to_html(text, folder).encode())
    return path


def to_html(markdown: str, folder: Path) -> str:
    """One self-contained page: the pictures that the Markdown names, relative to `folder`, are inside it."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(markdown)
    body = re.sub(
        r'src="([^":]+\.png)"', lambda match: f'src="{data_url((folder / match[1]).read_bytes())}"', body
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>BinaryGAN, reproduced</title>\n'
        f"<style>{_STYLE}</style>\n{body}</html>\n"
    )


def _markdown(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Table):
        header, *rows = (
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
            for line in [part.header, *part.rows]
        )
        return "\n".join([header, "|" + "---|" * len(part.header), *rows])
    return f"![{part.caption}]({_FIGURES}/{part.file})"


def _draw(figures: Sequence[Grid | Histograms], folder: Path) -> None:
    @cache
    def samples(run: str, binarization: str | None) -> Samples:
        return TrainedGenerator.from_run(Run(folder / "runs" / run)).sample(_SHOWN, binarization=binarization)

    def panel(outcome: Outcome | None, column: Column) -> Panel:
        if outcome is None:
            return None
        drawn = samples(outcome.run, outcome.binarization)
        return drawn.probabilities if column.is_preactivated else drawn.images

    for figure in figures:
        path = folder / _FIGURES / figure.file
        if isinstance(figure, Histograms):
            histogram_figure(path, figure.panels)
        else:
            columns = [(column.title, column.is_preactivated) for column in figure.columns]
            rows = {title: [*map(panel, row, figure.columns)] for title, row in figure.rows.items()}
            grid_figure(path, columns, rows)
