"""Model files that are cut off, damaged, or made to do harm."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

_DAMAGES = 3
_CUTS = 3


def bad_files(good: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """(what it is, content) of files none of which is a model that may be served; the harmless part varies."""
    yield "empty", b""
    yield "random bytes", rng.randbytes(rng.choice((1, 100, 100_000)))
    yield "a pickle", b"\x80\x04cposix\nsystem\n(S'true'\ntR."
    for _ in range(_CUTS):
        yield "cut off", good[: rng.randrange(1, len(good))]
    for _ in range(_DAMAGES):
        yield "damaged at its end", _damaged(good, rng)
    for name, change in _HOSTILE.items():
        model = onnx.load_from_string(good)
        change(model)
        yield name, model.SerializeToString()


def _damaged(good, rng):
    """A good file with bytes of its manifest, which comes last, overwritten by what is no JSON."""
    changed = bytearray(good)
    place = rng.randrange(len(good) - 300, len(good) - 20)
    changed[place : place + 8] = b'\x00\xff{\xfe}\x00"\xf0'
    return bytes(changed)


def _manifest(model):
    (entry,) = (entry for entry in model.metadata_props if entry.key == "bgan.model")
    return entry


def _rename(name: str) -> Callable:
    def change(model):
        entry = _manifest(model)
        old = entry.value.split('"name":')[1].split('"')[1]
        entry.value = entry.value.replace(f'"{old}"', f'"{name}"', 1)

    return change


def _without_manifest(model):
    model.metadata_props.remove(_manifest(model))


def _huge_manifest(model):
    _manifest(model).value = "[" * 200_000


def _other_shape(model):
    entry = _manifest(model)
    entry.value = entry.value.replace("28", "2147483647")


def _custom_operator(model):
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    model.graph.node.insert(0, helper.make_node("Steal", ["latents"], ["stolen"], domain="com.evil"))


def _external_data(path: str) -> Callable:
    """Weights that lie in a file of the server's."""

    def change(model):
        weights = model.graph.initializer[0]
        del weights.external_data[:]
        for field in ("raw_data", "float_data", "int64_data", "int32_data"):
            weights.ClearField(field)
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path), ("offset", "0"), ("length", "1000")):
            weights.external_data.add(key=key, value=value)

    return change


def _lying_sizes(model):
    weights = model.graph.initializer[0]
    del weights.dims[:]
    weights.dims.extend([2**31, 2**31])


def _cycle(model):
    node = model.graph.node[0]
    node.input[0] = model.graph.node[-1].output[0]


def _fails_when_run(model):
    """A graph that is right in its types, and fails with every batch."""
    model.graph.initializer.append(helper.make_tensor("wrong", TensorProto.INT64, [1], [3]))
    model.graph.node.insert(0, helper.make_node("Reshape", ["latents", "wrong"], ["reshaped"]))
    model.graph.node.append(helper.make_node("Size", ["reshaped"], ["size"]))
    images = next(node for node in model.graph.node if "images" in node.output)
    images.output[list(images.output).index("images")] = "clean"
    model.graph.node.append(helper.make_node("Cast", ["size"], ["small"], to=TensorProto.UINT8))
    model.graph.node.append(helper.make_node("Add", ["clean", "small"], ["images"]))


_HOSTILE: dict[str, Callable] = {
    "no manifest": _without_manifest,
    "a manifest of brackets": _huge_manifest,
    "a manifest of another shape": _other_shape,
    "a name that is a path": _rename("../../etc/passwd"),
    "a name that is a terminal's command": _rename("\\u001b[2J"),
    "a name of a megabyte": _rename("a" * 2**20),
    "an operator of another domain": _custom_operator,
    "weights in /etc/passwd": _external_data("/etc/passwd"),
    "weights in a folder above": _external_data("../../../../etc/passwd"),
    "weights of 2^62 values": _lying_sizes,
    "a graph in a circle": _cycle,
    "a graph that fails when it is run": _fails_when_run,
}


BAD_NAMES = (b"bad\n2026-01-01 00:00:00,000 INFO forged", b"bad\x1b[2J", b"bad\xff\xfe", "bad\u202eonnx".encode())
"""What a file may be called on Linux: a second line for the log, a terminal's command, no text, text backwards."""


def drop(folder: Path, name: bytes, content: bytes) -> Path:
    """Put a file into a folder of models as a plain copy would."""
    path = folder / f"{os.fsdecode(name)}.onnx"
    path.write_bytes(content)
    return path
