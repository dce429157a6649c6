"""HTTP/2 of valid HPACK and wrong contents: each field ends by its rule. `make soak` sends more."""

import random
from itertools import islice

import pytest

from bgan.serving.models.engine import load_engine
from tests.kit.cli import bgan
from tests.kit.servers import server
from tests.reliability.access import Access
from tests.reliability.frame_rules import COUNT, RULES, SEED, TOKEN_RULES
from tests.reliability.frames import Frames, Input, inputs

ALL = (*RULES, *TOKEN_RULES)
_DRAWN = 3
_DISTURBING = 16  # each ends one of four listeners


@pytest.fixture(scope="module")
def victim(small_models, tmp_path_factory):
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    token = bgan("token", "create", "someone", "--tokens", tokens).stdout.split()[0]
    with server(small_models, "--tokens", tokens, "--log-calls", "none") as process:
        yield process, Access(process.target, token)


@pytest.fixture(scope="module")
def frames(victim):
    return Frames(victim[1])


def test_a_good_call_has_the_right_images(frames, small_models):
    assert frames.images == load_engine(small_models / "sbn.onnx").sample(SEED, 0, COUNT).packed_images


@pytest.mark.parametrize("part", sorted({rule.part for rule in ALL}))
def test_each_field_ends_by_its_rule(frames, part):
    rng = random.Random(part)
    rules = [rule for rule in ALL if rule.part == part for _ in range(_DISTURBING if rule.disturbs else _DRAWN)]
    drawn = [Input(rule, (rule.draw(rng),)) for rule in rules]
    ends, breaches = frames.send(drawn)
    assert breaches == []
    assert ends.total() == len(drawn)


def test_faults_that_meet_hurt_nobody_else(frames, victim):
    joined = [given for given in islice(inputs(ALL, seed=3), 500) if given.rule is None]
    assert frames.send(joined)[1] == []
    assert victim[0].process.poll() is None
    assert "Traceback" not in victim[0].output()  # as gRPC logs one for metadata that is no UTF-8


def test_a_seed_draws_the_same_again(frames):
    first, again = (list(islice(inputs(ALL, seed=8), 100)) for _ in range(2))
    assert [frames.bytes_of(given) for given in first] == [frames.bytes_of(given) for given in again]


def test_a_server_that_breaks_a_rule_or_is_gone_is_found_out(small_models):
    (unknown,) = (rule for rule in TOKEN_RULES if rule.name == "another")
    with server(small_models) as process:  # it lets everyone in
        frames = Frames(Access(process.target))
        breaches = frames.send([Input(unknown, (unknown.draw(random.Random(1)),))])[1]
        assert breaches == ["frames token: another: OK instead of UNAUTHENTICATED (sampling.proto)"]
        process.stop()
        assert frames.not_live() != []
