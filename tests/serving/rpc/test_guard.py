"""Every error that a caller may get has its status code and its own reason for metrics."""

import grpc
import pytest

from bgan.serving.errors import CallError
from bgan.serving.rpc.guard import STATUSES


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
