"""The commands that run a model, as a table; `commands` has them, and is loaded when one is called."""

_MODULE = "bgan.serving.cli.commands"
COMMANDS = {
    "serve": ("Serve", "Stream binary images from models over gRPC until SIGTERM or Ctrl-C.", f"{_MODULE}:serve"),
    "health": ("Serve", "Ask a server for its health; exit with 0, or 1 and the reason.", f"{_MODULE}:health"),
    "top": ("Serve", "Watch a running server: its images per second, queue and models.", f"{_MODULE}:top"),
    "token": ("Serve", "Make, list and revoke the tokens of callers.", "bgan.serving.cli.token:token"),
    "generate": ("Sample", "Generate images into a file, as a server would stream them.", f"{_MODULE}:generate"),
    "bulk": ("Sample", "Generate any number of images as shards in a folder or bucket.", f"{_MODULE}:bulk"),
    "gallery": ("Sample", "Write a gallery of models as files for any web host.", f"{_MODULE}:gallery"),
}
"""By name of the command: its panel in `bgan --help`, its summary and its function."""
FACTS = "bgan.serving.cli.facts:facts"
"""What `bgan doctor` says of this room."""
