"""The house: which room may import which, which part of a room stands on which, and what a module may load.

LAYERS is the one table of it. A part may import what stands before it, and nothing that stands beside or after it.
"""

import ast
import graphlib
import subprocess
import sys

import pytest

import bgan.clients
from tests.conftest import ROOT

LAYERS = {
    "trainer": (
        *("common", "config", {"data", "networks"}, "training", "exporting", "evaluation"),
        {"reports/figures", "reports/sheet"},
        {f"reports/{name}" for name in ("card", "diagnosis", "exploration", "least_certain", "reproduction")},
        "api",
        "cli",
    ),
    "serving": (
        *({"errors", "call_context"}, "config", {"models", "security"}, "telemetry", "rpc", "web"),
        *({"server", "generate"}, "cli"),
    ),
    "clients": (
        *(
            {"_types", "_text", "_processes", "_description"},
            {"_errors", "_addresses", "_credentials"},
            {"_messages", "_retry", "_channels"},
        ),
        *("_stream", "_base", {"_client", "_async_client", "_files"}, {"_reading", "_output"}),
        *("_source", {"torch", "datasets"}, "cli"),
    ),
}
_PARTS = {
    room: {name for names in layers for name in ({names} if isinstance(names, str) else names)}
    for room, layers in LAYERS.items()
}
TORCH = ("torch", "torchvision", "onnx", "sklearn")


def _part(room, module):
    """The part of the room that a module, a tuple of names, belongs to."""
    for depth in (2, 1):
        if len(module) >= depth and "/".join(module[:depth]) in _PARTS[room]:
            return "/".join(module[:depth])
    return module[0]


def _modules(room):
    """Every module of a room but its `__init__`, by its path as a tuple of names."""
    paths = {path.relative_to(ROOT / room).with_suffix("").parts: path for path in (ROOT / room).rglob("*.py")}
    return {module: path for module, path in paths.items() if module[-1] != "__init__"}


def _imports(path):
    """Everything that a file imports, at its top or inside of a function: (level, dotted name)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
            yield from ((node.level, f"{node.module or ''}.{alias.name}".strip(".")) for alias in node.names)


def _imported_modules(module, path, modules):
    """The modules of its own room that a module imports."""
    for level, name in _imports(path):
        if level:
            package = module[: len(module) - level]
            assert level <= len(module), f"{path} imports from above its room"
            found = (*package, *name.split("."))
            if found in modules and found != module:
                yield found


def _rank(room, part):
    return next(
        rank for rank, names in enumerate(LAYERS[room]) if part in ({names} if isinstance(names, str) else names)
    )


@pytest.mark.parametrize("room", LAYERS)
def test_a_room_imports_no_other_room(room):
    examples = ROOT / "clients" / "examples"  # which use the clients as anybody does
    files = [path for path in (ROOT / room).rglob("*.py") if path.parent != examples]
    assert files
    for path in files:
        for level, name in _imports(path):
            if level == 0 and name.split(".")[0] == "bgan":
                stubs = ("bgan.v1", "bgan.inference") if room == "serving" else "bgan.v1"
                assert name.startswith(stubs), f"{path} imports {name}"


@pytest.mark.parametrize("room", LAYERS)
def test_a_part_imports_what_stands_before_it(room):
    modules = _modules(room)
    wrong = [
        f"{'.'.join(module)} imports {'.'.join(imported)}"
        for module, path in modules.items()
        for imported in _imported_modules(module, path, modules)
        if (own := _part(room, module)) != (other := _part(room, imported))
        and _rank(room, own) <= _rank(room, other)
    ]
    assert wrong == []


@pytest.mark.parametrize("room", LAYERS)
def test_modules_import_each_other_in_no_circle(room):
    modules = _modules(room)
    graph = {module: set(_imported_modules(module, path, modules)) for module, path in modules.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("bgan.serving.server.server", (*TORCH, "prometheus_client", "opentelemetry", "fsspec")),
        ("bgan.clients", (*TORCH, "onnxruntime")),
        ("bgan.clients._files", (*TORCH, "onnxruntime")),
        ("bgan.trainer.cli.app", ("typer",)),
        ("bgan.trainer.cli.host", (*TORCH, "onnxruntime", "numpy", "grpc")),
        ("bgan.serving.cli", (*TORCH, "onnxruntime", "numpy", "grpc", "pydantic")),
        ("bgan.clients.cli", (*TORCH, "onnxruntime", "numpy", "grpc")),
    ],
)
def test_a_module_loads_only_what_it_may(module, forbidden):
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("bgan.trainer.config", (*TORCH, "numpy", "rich")),
        ("bgan.serving.config", ("grpc", "onnxruntime", "numpy")),
        ("bgan.serving.models", ("grpc", "fsspec", *TORCH)),
        ("bgan.serving.generate", ("grpc", "fsspec", *TORCH)),
        ("bgan.serving.security", ("onnxruntime", *TORCH)),
    ],
)
def test_a_part_loads_only_what_it_may(package, forbidden):
    code = f"""if True:
        import pkgutil, sys, {package}
        for module in pkgutil.walk_packages({package}.__path__, "{package}."):
            __import__(module.name)
        print([name for name in {forbidden!r} if name in sys.modules])
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_what_the_tests_import_is_there():
    """Also what only the soak and the benchmarks run, which can need packages that are not installed here."""
    names = {name for path in (ROOT / "tests").rglob("*.py") for _, name in _imports(path)}
    code = f"""if True:
        import pkgutil
        for name in {sorted(name for name in names if name.startswith("bgan."))!r}:
            try:
                pkgutil.resolve_name(name)
            except AttributeError:
                print(name)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == ""


def test_public_names_of_the_clients():
    assert all(getattr(bgan.clients, name).__name__ == name for name in bgan.clients.__all__)
    assert bgan.clients.__all__ == sorted(bgan.clients.__all__)
