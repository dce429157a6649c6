"""Pages of the models that are served, by AIP-158 (https://google.aip.dev/158).

A token names the last model of its page, so any server of the same models can answer it, and it never ends.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Sequence

from ..errors import InvalidRequestError, foreign
from ..models.engine import Engine

MAX_PAGE_SIZE = 1000
_MAX_TOKEN = 1024
_SEPARATOR = "\n"  # no name has it
_Place = tuple[str, int]


def page_of(engines: Sequence[Engine], page_size: int, page_token: str) -> tuple[Sequence[Engine], str]:
    """A page of models that are sorted as the registry's, and the token of the next; "": there is none.

    page_size: 0 means the most that there may be. page_token: "" means the first page.

    Raises InvalidRequestError.
    """
    violations = {}
    if page_size < 0:
        violations["page_size"] = f"is {page_size}; use 1 to {MAX_PAGE_SIZE}, or 0 for the server's choice"
    after = _read(page_token) if page_token else ("", 0)
    if after is None:
        violations["page_token"] = f"is '{foreign(page_token)}', which no server has given; begin without one"
    if violations or after is None:
        raise InvalidRequestError(violations)
    start = bisect_right(engines, after, key=_place) if page_token else 0
    end = start + min(page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
    return engines[start:end], _token(engines[end - 1]) if end < len(engines) else ""


def _place(engine: Engine) -> _Place:
    return engine.manifest.name, -engine.version


def _token(engine: Engine) -> str:
    return urlsafe_b64encode(f"{engine.version}{_SEPARATOR}{engine.manifest.name}".encode()).decode()


def _read(token: str) -> _Place | None:
    """The place after which the page begins; None: it is no token."""
    if len(token) > _MAX_TOKEN:
        return None
    try:
        version, separator, name = urlsafe_b64decode(token).decode().partition(_SEPARATOR)
    except ValueError:  # as those of base64 and UTF-8 are
        return None
    return (name, -int(version)) if separator and version.isdecimal() else None
