"""Lines and tables for the user, whatever files and folders are called, on terminals of any width."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from bgan.trainer.common.console import say, show_table
from bgan.trainer.common.text import printable
from tests.kit.cli import bgan, error_line

EVIL = "\x1b[2J[/nothing]:smile:\x07"
_NAME = "modern-glyphs-mlp-dbn-relativistic-seed0"


def test_a_line_is_said_as_it_is_but_commands_no_terminal():
    console = Console(file=io.StringIO(), width=20)
    say(console, f"two\nlines, and {EVIL} in a name that is longer than the console is wide")
    assert console.file.getvalue() == (
        "two\nlines, and \\x1b[2J[/nothing]:smile:\\x07 in a name that is longer than the console is wide\n"
    )


@pytest.mark.parametrize(("text", "shown"), [("a\nb", "a\\nb"), ("x" * 30, "x" * 20 + "..."), ("é漢", "é漢")])
def test_printable(text, shown):
    assert printable(text, 20) == shown


def test_an_error_is_one_line_whatever_a_file_is_called(tmp_path):
    line = error_line(bgan("export", f"{EVIL}\nbgan: forged", "--runs-dir", tmp_path))
    assert "\x1b" not in line
    assert "forged" in line or "train one" in line


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
