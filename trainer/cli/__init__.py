"""The trainer's commands, and the `bgan` command that hosts those of every room.

A room says what its commands are in a table of plain strings, so that `bgan --help` imports none of them.
"""

from .app import main

__all__ = ["COMMANDS", "FACTS", "main"]

COMMANDS = {
    name: (panel, summary, f"bgan.trainer.cli.{module}:{name.replace('-', '_')}")
    for name, (panel, module, summary) in {
        "train": ("Train", "train", "Train a GAN with binary output neurons."),
        "data": ("Train", "data", "Show what would be trained on, before you wait for a training."),
        "export": ("Train", "export", "Export a run's generator as one ONNX file, where it is served from."),
        "presets": ("Train", "train", "List the presets of `bgan train --preset`, and what each changes."),
        "evaluate": ("Measure", "evaluate", "Measure a generator, or a file of samples, against real images."),
        "card": ("Measure", "card", "Measure exported models and write a card next to each: MODEL.md."),
        "diagnose-gradients": (
            "Measure",
            "diagnose",
            "Measure the gradient estimators on a trained run: bias, noise, cosine and cost.",
        ),
        "explore": (
            "Measure",
            "explore",
            "Draw what a generator has learned: one offline page, and PNG pictures.",
        ),
        "doctor": (
            "Help",
            "doctor",
            "Print versions, extras, folders and data sets: what a bug report needs.",
        ),
        "reproduce": ("Measure", "reproduce", "Run the paper's experiments and write one report, with figures."),
    }.items()
}
"""The panel, the summary and the function of each command; the function's docstring is the rest of its help."""
FACTS = "bgan.trainer.cli.facts:facts"
"""What `bgan doctor` says of this room."""
