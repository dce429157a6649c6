"""Text that quotes others: file names, manifests, callers."""


def printable(text: str) -> str:
    """The text with what cannot be printed escaped, so that it is one line, and no other line is forged."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
