"""Tables in the documentation are what the settings say. `make snapshots` writes them again."""

import re

import pytest

from bgan.serving.config.settings import settings_table as serving_settings
from bgan.trainer.config.file import settings_table as training_settings
from tests.conftest import ROOT

_REGION = re.compile(r"(?<=<!-- settings: begin -->\n).*?(?=<!-- settings: end -->)", re.DOTALL)


@pytest.mark.parametrize(("page", "table"), [("training.md", training_settings), ("serving.md", serving_settings)])
def test_tables_of_settings(request, page, table):
    path = ROOT / "docs" / page
    text = path.read_text()
    assert len(_REGION.findall(text)) == 1
    if request.config.getoption("update_snapshots"):
        path.write_text(_REGION.sub(lambda found: table(), text))
        text = path.read_text()
    assert _REGION.findall(text) == [table()]
