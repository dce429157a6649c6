"""The page of an exploration: one HTML file with everything in it."""

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from io import BytesIO

from PIL import Image

from ..figures import data_url
from ..sheet import DENSITY, PAPER
from .explore import Exploration
from .picture import Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2026; --faint: #5c6370; --paper: #fbfbfc; --line: #d9dce1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ec; --faint: #a2a9b5; --paper: #16181c; --line: #343942; }
}
body { font: 17px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
main { max-width: 1052px; margin: 0 auto; padding: 2rem 1rem 3rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
p { max-width: 46rem; margin: .3rem 0 .9rem; }
.facts, footer { color: var(--faint); }
figure { margin: 0; }
figcaption { max-width: 46rem; margin: 0 0 .9rem; }
.sheet { overflow-x: auto; background: var(--sheet); border-radius: 8px; }
img { display: block; max-width: 100%; min-width: min(34rem, var(--width)); height: auto; }
footer { border-top: 1px solid var(--line); margin-top: 2.6rem; padding-top: .8rem; font-size: .9rem; }
code { overflow-wrap: anywhere; }
"""


def build_page(exploration: Exploration, pictures: Sequence[Picture]) -> str:
    """The page as HTML. It names nothing outside itself."""
    generator = exploration.generator
    gates = "" if generator.gates is None else f", {generator.gates.text}"
    facts = (
        f"Generator {generator.network}{gates}, neurons {generator.neuron}, trained on "
        f"{generator.dataset_spec.dataset} for {generator.step:,} steps; slope {generator.slope:.3g}. "
        f"Latents and noise come from seed {exploration.plan.seed}; latent 1 is the same in every picture."
    )
    plan = exploration.plan
    options = f"--images {plan.images} --steps {plan.steps} --draws {plan.draws} --seed {plan.seed}"
    name = escape(generator.name)
    figures = "\n".join(_figure(picture) for picture in pictures)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}, explored</title>
<style>{_STYLE}</style>
<main style="--sheet: {PAPER}">
<h1>{name}</h1>
<p class="facts">{escape(facts)}</p>
{figures}
<footer>Made by bgan {version("bgan")}: <code>bgan explore {options}</code></footer>
</main>
</html>
"""


def _figure(picture: Picture) -> str:
    with Image.open(BytesIO(picture.png)) as image:
        width, height = (length // DENSITY for length in image.size)
    title = escape(picture.title)
    return (
        f'<h2 id="{picture.name}">{title}</h2>\n'
        f"<figure><figcaption>{escape(picture.caption)}</figcaption>\n"
        f'<div class="sheet" role="region" aria-label="{title}" tabindex="0" style="--width: {width}px">'
        f'<img width="{width}" height="{height}" alt="{escape(picture.alternative)}" '
        f'src="{data_url(picture.png)}"></div></figure>'
    )
