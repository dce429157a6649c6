"""Directives that write the reference from its sources: Python API, commands, settings, protos and metrics."""

import inspect
import re
from importlib import import_module
from importlib.metadata import entry_points

from protos import proto_pages
from sphinx.util.docutils import SphinxDirective


class Generated(SphinxDirective):
    """A directive whose content is the Markdown of a function of its argument."""

    required_arguments = 0
    optional_arguments = 1

    def run(self):
        """Parse what `text` writes, in place of the directive."""
        return self.parse_text_to_nodes(self.text(*self.arguments), allow_section_headings=True)


class PythonApi(SphinxDirective):
    """All public names of a module, or those in the content with their modules, by their docstrings."""

    optional_arguments = 1
    has_content = True

    def run(self):
        """Parse one directive of autodoc for each name, as reStructuredText."""
        if self.arguments:
            module = import_module(self.arguments[0])
            names = [(module, name) for name in module.__all__]
            for _, name in names:
                value = getattr(module, name)
                if inspect.isclass(value) or inspect.isfunction(value):
                    value.__module__ = module.__name__  # where users find it, and where signatures link to
        else:
            found = (path.rpartition(".")[::2] for path in self.content)
            names = [(import_module(module), name) for module, name in found]
        lines = [line for module, name in names for line in _autodoc(module.__name__, name, getattr(module, name))]
        return self.parse_text_to_nodes("```{eval-rst}\n" + "\n".join(lines) + "\n```")


def _autodoc(module, name, value):
    if inspect.isclass(value):
        if issubclass(value, BaseException):
            return [f".. autoexception:: {module}.{name}", "   :show-inheritance:", ""]
        return [f".. autoclass:: {module}.{name}", "   :members:", "   :inherited-members: Module", ""]
    if callable(value):
        return [f".. autofunction:: {module}.{name}", ""]
    return [f".. py:data:: {module}.{name}", f"   :type: {type(value).__name__}", ""]


class Commands(Generated):
    """Every command's help, by Typer's own writer of documentation."""

    def text(self):
        """A section for each command."""
        import typer
        from typer.cli import get_docs_for_click

        from bgan.trainer.cli.host import _load

        commands = {}
        for entry_point in entry_points(group="bgan.commands"):
            commands |= entry_point.load()
        pages = []
        for name, (_, summary, path) in sorted(commands.items()):
            command = _load(name, summary, path)
            context = typer.Context(command, info_name=f"bgan {name}")
            text = get_docs_for_click(obj=command, ctx=context, name=f"bgan {name}")
            text = re.sub(r"(?:^ *bgan .*\n)+", lambda found: f"\n```console\n{found[0]}```\n\n", text, flags=re.M)
            pages.append(re.sub(r"^#+ `", "## `", text, flags=re.M))
        return "\n\n".join(pages)


class Settings(Generated):
    """The settings of `bgan train` or `bgan serve`."""

    def text(self, command):
        """Its table."""
        module = {"train": "bgan.trainer.config.file", "serve": "bgan.serving.config.settings"}[command]
        return import_module(module).settings_table()


class Metrics(Generated):
    """The metrics of the server."""

    def text(self):
        """A table of all of them."""
        from bgan.serving.telemetry.prometheus import PrometheusMetrics

        registry = PrometheusMetrics().registry
        lines = ["| metric | type | labels | what it is |", "|---|---|---|---|"]
        for collector in dict.fromkeys(registry._collector_to_names):
            (metric,) = collector.describe() or collector.collect()
            ending = "_total" if metric.type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in collector._labelnames)
            lines.append(f"| `{metric.name}{ending}` | {metric.type} | {labels} | {metric.documentation} |")
        return "\n".join(lines)


class Protos(Generated):
    """The services and messages of the protos, by their comments."""

    def text(self):
        """A section for each file."""
        return proto_pages(["model.proto", "sampling.proto"])


def setup(app):
    """Add the directives."""
    for name, directive in {
        "bgan-api": PythonApi,
        "bgan-commands": Commands,
        "bgan-settings": Settings,
        "bgan-metrics": Metrics,
        "bgan-protos": Protos,
    }.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
