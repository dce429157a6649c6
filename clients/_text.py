"""Text from elsewhere as it may be shown: one line that commands no terminal and forges no other line."""

MAX_SHOWN = 300


def printable(text: str, most: int = MAX_SHOWN) -> str:
    """The text with what cannot be printed escaped, and cut after so many characters."""
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}..."
