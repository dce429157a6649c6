import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from bgan.serving.config.limits import MAX_MODEL_BYTES
from bgan.serving.errors import ModelFileError, StartError
from bgan.serving.models import engine as engines
from bgan.serving.models.checker import Checker
from bgan.serving.models.engine import load_engine
from bgan.serving.models.noise import NoiseLayout
from bgan.serving.models.repository import Repository
from tests.fixtures.write import make_integer
from tests.kit.cli import bgan, error_line


def save(model, path, *, sha256=None):
    """The model with the digest of its images, or another one."""
    if sha256 is None:
        latents = NoiseLayout(10).draw(0, 0, 1024).latents
        (images,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["images"], {"latents": latents})
        sha256 = hashlib.sha256(np.packbits(images.reshape(1024, -1), axis=1).tobytes()).hexdigest()
    (entry,) = model.metadata_props
    text = entry.value.rstrip().removesuffix("}").rstrip()
    helper.set_model_props(model, {entry.key: f'{text}, "imagesSha256": "{sha256}"}}'})
    onnx.save(model, path)
    return path


def edited(name, change, **sizes):
    """An integer model, one of whose constants was changed."""
    model = make_integer(**sizes)
    tensor = next(each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    return model


def test_an_integer_model_has_one_revision_everywhere(tmp_path, monkeypatch):
    path = save(make_integer(), tmp_path / "x.onnx")
    here = load_engine(path)
    assert 0.01 < np.unpackbits(np.frombuffer(here.sample(0, 0, 100).packed_images, np.uint8)).mean() < 0.99
    monkeypatch.setattr(engines, "cpu_class", lambda: "aarch64")
    monkeypatch.setattr(onnxruntime, "__version__", "1.99.0")
    assert load_engine(path).revision == here.revision
    other = save(make_integer(seed=2), tmp_path / "y.onnx")
    assert load_engine(other).revision != here.revision


def test_a_float_model_has_a_revision_for_each_cpu_class_and_runtime(models, monkeypatch):
    path = models / "mlp-dbn.onnx"
    revisions = [load_engine(path).revision]
    monkeypatch.setattr(engines, "cpu_class", lambda: "aarch64")
    revisions.append(load_engine(path).revision)
    monkeypatch.setattr(onnxruntime, "__version__", "1.99.0")
    revisions.append(load_engine(path).revision)
    assert len(set(revisions)) == 3


@pytest.mark.parametrize("sha256", ["", "0" * 64])
def test_a_model_that_gives_other_images_than_its_manifest_promises_is_refused(tmp_path, sha256):
    path = save(make_integer(), tmp_path / "x.onnx", sha256=sha256)
    with pytest.raises(ModelFileError, match=r"x\.onnx gives other images here than its manifest promises"):
        load_engine(path)


def one_weight_of_64(weight):
    weight[3, 5] = -64
    return weight


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("first_weight", one_weight_of_64, "weights of up to 64; up to 63 none saturates"),
        ("last_offsets", lambda offsets: offsets + np.int32(2**24), "are exact below 16,777,216"),
        ("last_weight", lambda weight: weight[None], "weights and offsets do not fit each other"),
        ("middle_weight", one_weight_of_64, "weights of up to 64; up to 63 none saturates"),
        ("middle_scale", lambda scale: np.float32(0.3), "other than one power of two"),
        ("middle_scale", lambda scale: np.float32(2), "other than one power of two"),
        ("middle_scale", lambda scale: np.float32(2**-25), "other than one power of two"),
        ("middle_scale", lambda scale: -scale, "other than one power of two"),
        ("middle_scale", lambda scale: np.full(8, 0.5, np.float32), "other than one power of two"),
        ("one", lambda scale: np.float32(0.5), "other than one power of two"),
        ("uint8_zero", lambda zero: np.uint8(1), "other than one power of two"),
        ("int8_zero", lambda zero: np.int8(1), "other than one power of two"),
    ],
)
def test_an_edited_model_that_breaks_a_bound_is_refused(tmp_path, name, change, says):
    path = save(edited(name, change), tmp_path / "x.onnx", sha256="0" * 64)
    with pytest.raises(ModelFileError, match=says):
        load_engine(path)


def test_sums_of_many_weights_are_bounded(tmp_path):
    path = save(make_integer(latent_size=1100), tmp_path / "x.onnx", sha256="0")
    assert load_refusal(path).startswith(f"{path} gives other images")  # random weights add up to half of it
    for name, sizes in (("first_weight", {"latent_size": 1100}), ("middle_weight", {"hidden_size": 1100})):
        model = edited(name, lambda weight: np.full_like(weight, 63), **sizes)
        assert "sums of up to 17,6" in load_refusal(save(model, path, sha256="0"))


def load_refusal(path):
    with pytest.raises(ModelFileError) as caught:
        load_engine(path)
    return caught.value.message


def test_floats_that_are_added_up_are_refused(tmp_path):
    """A float layer in front: whatever the manifest says, its sums are of another order elsewhere."""
    model = make_integer()
    model.graph.initializer.append(numpy_helper.from_array(np.eye(10, dtype=np.float32), "identity"))
    node = helper.make_node("MatMul", ["latents", "identity"], ["mixed"])
    next(each for each in model.graph.node if each.input[0] == "latents").input[0] = "mixed"
    model.graph.node.insert(0, node)
    assert "it uses 'MatMul'" in load_refusal(save(model, tmp_path / "x.onnx"))


def test_weights_in_another_format_are_refused(tmp_path):
    model = make_integer()
    tensor = next(each for each in model.graph.initializer if each.name == "first_weight")
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(helper.make_tensor("first_weight", tensor.data_type, values.shape, values.flatten().tolist()))
    assert "in another format" in load_refusal(save(model, tmp_path / "x.onnx"))


@pytest.mark.parametrize(
    ("operator", "place", "constant"),
    [
        ("MatMulInteger", 1, "first_weight"),
        ("QLinearMatMul", 3, "middle_weight"),
        ("QLinearMatMul", 4, "middle_scale"),
    ],
)
def test_weights_and_scales_that_are_computed_are_refused(tmp_path, operator, place, constant):
    model = make_integer()
    kind = next(each for each in model.graph.initializer if each.name == constant).data_type
    node = helper.make_node("Cast", [constant], ["computed"], to=kind)
    next(each for each in model.graph.node if each.op_type == operator).input[place] = "computed"
    model.graph.node.insert(0, node)
    path = save(model, tmp_path / "x.onnx", sha256="0")
    assert "integers other than with constant weights" in load_refusal(path)


def test_a_folder_of_edited_models_serves_none_of_them(tmp_path, processes):
    """The good one is served, each bad one has a line; alone they let no server start, and make no files."""
    folder = tmp_path / "models"
    folder.mkdir()
    save(edited("first_weight", one_weight_of_64), folder / "bound.onnx", sha256="0" * 64)
    save(make_integer(), folder / "digest.onnx", sha256="0" * 64)
    for name, says in (("bound", "has integer weights of up to 64"), ("digest", "gives other images here")):
        line = error_line(bgan("generate", name, "--models", folder, "-o", tmp_path / "x.npy"))
        assert line.startswith(f"bgan: {folder / name}.onnx {says}")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    checker = Checker(MAX_MODEL_BYTES)
    try:
        with pytest.raises(StartError, match=r"(bound|digest)\.onnx (has integer weights|gives other images)"):
            Repository(folder, checker=checker).load()
        save(make_integer(), folder / "good.onnx")
        registry = Repository(folder, checker=checker).load()
    finally:
        checker.close()
    assert registry.names == ("integers",)
    reasons = {failure.model: failure.reason for failure in registry.failures}
    assert reasons["bound"].startswith("bound.onnx has integer weights of up to 64; up to 63 none saturates")
    assert reasons["digest"].startswith("digest.onnx gives other images here than its manifest promises")
