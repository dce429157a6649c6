"""Every error that a caller may get has its status code and its own reason for metrics."""

import re

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tritonclient.grpc import service_pb2 as oip

from bgan.serving.errors import CallError
from bgan.serving.rpc.guard import STATUSES
from bgan.v1 import sampling_pb2 as pb
from tests.conftest import ROOT
from tests.kit.servers import server
from tests.kit.waiting import eventually

SAMPLE = "/bgan.v1.SamplingService/SampleBinaryImages"
INFER = "/inference.GRPCInferenceService/ModelInfer"


STATUSES_BY_REASON = {kind.reason.upper(): code for kind, (code, _) in STATUSES.items()}


def _infos(error):
    details = rpc_status.from_call(error).details
    found = [error_details_pb2.ErrorInfo() for _ in details]
    return [info for info, detail in zip(found, details, strict=True) if detail.Unpack(info)]


def _subclasses(kind):
    return [each for child in kind.__subclasses__() for each in (child, *_subclasses(child))]


def test_every_error_for_callers_has_a_status_of_its_own():
    kinds = _subclasses(CallError)
    assert set(kinds) == set(CallError.kinds) == set(STATUSES)
    codes = {code for code, _ in STATUSES.values()}
    assert not codes & {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}


def test_every_error_for_callers_has_a_reason_of_its_own():
    reasons = [kind.reason for kind in CallError.kinds]
    assert len({"internal", *reasons}) == 1 + len(CallError.kinds)


def test_an_error_without_a_reason_cannot_be_defined():
    with pytest.raises(TypeError, match="reason"):
        type("UnnamedError", (CallError,), {})


def _reasons_of_the_proto():
    """What the comment of the service lists: the reasons of each code."""
    text = (ROOT / "proto/bgan/v1/sampling.proto").read_text()
    listed = re.findall(r"^//   ([A-Z_]+)  +([A-Z_]+.*)$", text, re.MULTILINE)
    return {reason: code for code, reasons in listed for reason in re.findall(r"[A-Z_]{5,}", reasons)}


def test_the_proto_lists_the_reason_of_every_error():
    ours = {reason: code.name for reason, code in STATUSES_BY_REASON.items()}
    assert _reasons_of_the_proto() == {**ours, "INTERNAL": "INTERNAL", "METHOD_NOT_FOUND": "UNIMPLEMENTED"}
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", reason) for reason in ours)  # AIP-193


@pytest.fixture(scope="module")
def guarded(small_models):
    with server(small_models, "--log-format", "json") as process:
        yield process


LONG = "\x1b\n" * 1_500_000
_tensor = oip.ModelInferRequest.InferInputTensor
CODES = {
    "a model": ("/bgan.v1.SamplingService/GetModel", pb.GetModelRequest(name=LONG), "NOT_FOUND"),
    "a model of images": (SAMPLE, pb.SampleBinaryImagesRequest(model=LONG), "NOT_FOUND"),
    "a revision": (
        "/bgan.v1.SamplingService/GetModel",
        pb.GetModelRequest(revision=LONG),
        "FAILED_PRECONDITION",
    ),
    "a model of tensors": (INFER, oip.ModelInferRequest(model_name=LONG), "NOT_FOUND"),
    "a version of tensors": (INFER, oip.ModelInferRequest(model_version=LONG), "NOT_FOUND"),
    "an input": (
        INFER,
        oip.ModelInferRequest(inputs=[_tensor(name=LONG)]),
        "INVALID_ARGUMENT",
    ),
    "inputs": (
        INFER,
        oip.ModelInferRequest(inputs=[_tensor(name="x")] * 100_000),
        "INVALID_ARGUMENT",
    ),
    "an output": (
        INFER,
        oip.ModelInferRequest(outputs=[{"name": LONG}]),
        "INVALID_ARGUMENT",
    ),
    "a datatype": (
        INFER,
        oip.ModelInferRequest(inputs=[_tensor(name="latents", datatype=LONG)]),
        "INVALID_ARGUMENT",
    ),
    "a shape": (
        INFER,
        oip.ModelInferRequest(inputs=[_tensor(name="latents", datatype="FP32", shape=[1] * 1_000_000)]),
        "INVALID_ARGUMENT",
    ),
}


@pytest.mark.parametrize("what", CODES)
def test_the_code_of_an_error_does_not_depend_on_its_length(guarded, what):
    method, request, code = CODES[what]
    size_before = len(guarded.output())
    with grpc.insecure_channel(guarded.target) as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(method, request.SerializeToString)(request, timeout=60))
    assert caught.value.code().name == code
    assert len(caught.value.details()) < 1000
    assert caught.value.details().isprintable()
    (info,) = _infos(caught.value)
    assert (info.domain, STATUSES_BY_REASON[info.reason].name) == ("bgan", code)
    request_id = dict(caught.value.trailing_metadata())["x-request-id"]
    eventually(lambda: request_id in guarded.output())
    assert len(guarded.output()) - size_before < 3000
