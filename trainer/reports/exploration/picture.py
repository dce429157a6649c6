"""A picture of an exploration, with what teaches how to read it."""

from dataclasses import dataclass

from ..sheet import Block, draw_sheet
from .explore import Exploration


@dataclass(frozen=True, slots=True)
class Picture:
    """A contact sheet with its words, which are plain text."""

    name: str
    """Of its file, without .png."""
    title: str
    caption: str
    alternative: str
    """What stands for the picture where it cannot be seen."""
    png: bytes


def draw_picture(
    exploration: Exploration, name: str, title: str, words: tuple[str, str], *blocks: Block
) -> Picture:
    """The picture of these blocks; `words` are its caption, and what stands for it."""
    generator = exploration.generator
    subject = f"{generator.name}, step {generator.step}, seed {exploration.plan.seed}"
    return Picture(name, title, *words, draw_sheet(title, subject, blocks))


def latent_labels(exploration: Exploration) -> list[str]:
    """What the latents shown are called: by number, and by class if there are classes."""
    classes = exploration.generator.classes
    names = [f": {classes[i % len(classes)]}" if classes else "" for i in range(exploration.plan.images)]
    return [f"latent {i + 1}{name}" for i, name in enumerate(names)]
