"""The documentation as a site: `make docs`. Its pages are the Markdown files of the repository, where they lie."""

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

project = "bgan"
author = "The bgan authors"
project_copyright = "2026, the bgan authors"
release = metadata.version("bgan")
extensions = ["sphinx.ext.autodoc", "myst_nb", "reference"]
root_doc = "README"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "serving/shipped/*.md"),
    "clients/*/README.md",
    *("docs/*.md", "docs/*/*.md", "docs/tutorials/*.ipynb"),
]
exclude_patterns = ["docs/site"]

# Links to headings are those of code hosts. A link to another file of the repository brings it into the site.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # the notebooks have their outputs; tests run them
suppress_warnings = ["myst.strikethrough"]

default_role = "code"  # of docstrings
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
# What other packages call their types is not checked: their inventories would be fetched.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!bgan\.).*"),
    ("py:.*", r"bgan\.\w+\.\w+\..*"),  # of modules that are not public
]

smartquotes = False  # they would make dashes of --options

html_theme = "furo"
html_title = f"bgan {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = str(ROOT / "clients" / "browser" / "icon.svg")
html_copy_source = False
html_show_sourcelink = False
pygments_style, pygments_dark_style = "tango", "monokai"


def setup(app):
    """Put the navigation at the end of the first page, and that page where a web server looks for it."""
    app.connect("autodoc-process-docstring", _list_arguments)
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _name_first_page)


def _list_arguments(app, what, name, value, options, lines):
    """Make lines that begin with the names of arguments, as in `count: how many`, a list."""
    is_in_list, listed = False, []
    for line in lines:
        line = line.replace("|", r"\|")  # noqa: PLW2901 - else it is a substitution
        found = re.match(r"([a-z_*]+(?:, [a-z_*]+)*): (.*)", line)
        if found:
            listed += [*([] if is_in_list else [""]), f"- ``{found[1]}``: {found[2]}"]
        elif is_in_list and line.startswith(" "):
            listed.append(f"  {line.strip()}")
        else:
            listed += ["", line] if is_in_list and line else [line]
        is_in_list = bool(found) or (is_in_list and line.startswith(" "))
    lines[:] = listed


def _add_navigation(app, name, source):
    if name == root_doc:
        source[0] += "\n" + (HERE / "navigation.md").read_text()


def _name_first_page(app, error):
    if error is None and app.builder.format == "html":
        shutil.copy(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")
