"""Tables on narrow terminals."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from bgan.trainer.common.console import show_table

_NAME = "modern-glyphs-mlp-dbn-relativistic-seed0"


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
def test_a_narrow_terminal_loses_no_word_of_a_table(width):
    table = Table("estimator", "milliseconds", "run")
    table.add_row("sigmoid-adjusted", "0.123456", _NAME)
    console = Console(file=io.StringIO(), width=width)
    show_table(console, table)
    shown = console.file.getvalue()
    for word in ("estimator", "milliseconds", "sigmoid-adjusted", "0.123456", _NAME):
        assert word in shown
    assert console.width == width
