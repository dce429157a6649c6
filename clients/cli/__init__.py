"""The clients' commands, as a table; each module has one, and is loaded when it is called."""

COMMANDS = {
    "sample": (
        "Sample",
        "Sample images from one or several servers into a file.",
        "bgan.clients.cli.sample:sample",
    ),
    "models": (
        "Sample",
        "List a server's models, and the files that it cannot serve.",
        "bgan.clients.cli.models:models",
    ),
}
"""By name: the help panel, the summary and the function, whose docstring is the rest of the help."""
