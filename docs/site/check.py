"""Check a built site: `python check.py FOLDER`. Its links lead somewhere; it loads nothing from another host."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADING = {"img", "script", "link", "source", "iframe", "use", "video"}
_REMOTE_STYLE = re.compile(r"""(url\(|@import )\s*["']?(https?:)?//""")


class _Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if values.get("rel") not in {"canonical", "search"}:
            self.links += [(tag, values[name]) for name in ("href", "src") if values.get(name)]


def problems(folder):
    """What is wrong, a line each. Links to other hosts are checked by their form alone."""
    folder = folder.resolve()
    pages = {path: _Page(path) for path in folder.rglob("*.html")}
    found = set()
    for path, page in pages.items():
        for tag, address in page.links:
            if fault := _fault(path, pages, tag, address):
                found.add(f"{path.relative_to(folder)}: {address} {fault}")
    for path in folder.rglob("*.css"):
        if _REMOTE_STYLE.search(path.read_text()):
            found.add(f"{path.relative_to(folder)}: loads from another host")
    return sorted(found)


def _fault(path, pages, tag, address):
    parts = urlsplit(address)
    if parts.scheme in {"data", "mailto"}:
        return None
    if parts.scheme or parts.netloc:
        if tag in _LOADING:
            return "is loaded from another host"
        is_well_formed = parts.scheme in {"http", "https"} and parts.hostname and " " not in address
        return None if is_well_formed else "is no address of the web"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return "is not there"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids | {"top"}:
        return "has no such heading"
    return None


if __name__ == "__main__":
    sys.exit("\n".join(problems(Path(sys.argv[1]))) or None)
