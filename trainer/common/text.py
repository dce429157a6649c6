"""Text from elsewhere as it may be shown."""


def printable(text: str, most: int, *, keep: str = "") -> str:
    """The text with what cannot be printed escaped, but for signs to `keep`, and cut after `most` characters."""
    shown = "".join(sign if sign.isprintable() or sign in keep else ascii(sign)[1:-1] for sign in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}..."


def first_line(reason: object) -> str:
    """The first line of an error's text; its type if it has none."""
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__)


def shown(value: object) -> str:
    """A value as errors show it: in a line, however long it is."""
    return printable(repr(value), 80)
