"""What errors tell callers: short and printable, whatever was sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgan.serving.errors import InvalidRequestError, ModelNotFoundError, RevisionNotServedError, foreign, printable

texts = st.text(max_size=50) | st.sampled_from(["a", "\0", "\U0010ffff", "図", "\ud800"]).map(
    lambda sign: sign * 5000
)


@given(texts, st.integers(1, 300))
def test_a_text_is_printable_and_bounded_in_bytes(text, most):
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown.encode()) <= most + len("... (5000 characters)")
    if text.isprintable() and len(text.encode()) <= most:
        assert shown == text


def test_what_is_cut_says_how_long_it_was():
    assert foreign("x" * 4_000_000) == "x" * 200 + "... (4000000 characters)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelNotFoundError("\0" * 100_000),
        lambda: InvalidRequestError({f"{number}\n" * 10_000: "図" * 10_000 for number in range(1000)}),
        lambda: RevisionNotServedError("a", wanted="\x1b" * 100_000, served="b"),
    ],
    ids=["model", "request", "revision"],
)
def test_all_that_a_caller_is_told_fits_into_the_end_of_a_call(make):
    error = make()
    text = str(error)
    details = "".join(f"{field}{value}" for field, value in getattr(error, "violations", {}).items())
    details += "".join(error.metadata.values())
    assert (text + details).isprintable()
    encoded_bytes = 3 * len(text.encode()) + 4 / 3 * (len(text.encode()) + len(details.encode()))
    assert encoded_bytes < 8192
