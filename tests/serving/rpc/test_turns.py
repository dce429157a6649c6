"""Whose turn it is: everyone's, one after the other."""

from hypothesis import given
from hypothesis import strategies as st

from bgan.serving.rpc.turns import Turns


def _drained(turns):
    return [turns.take() for _ in range(len(turns))]


def test_everyone_has_a_turn_however_much_others_want():
    turns = Turns()
    for number in range(100):
        turns.put(("greedy",), f"greedy {number}")
    turns.put(("modest",), "modest 0")
    turns.put(("modest",), "modest 1")
    assert _drained(turns)[:5] == ["greedy 0", "modest 0", "greedy 1", "modest 1", "greedy 2"]


def test_connections_share_their_callers_turns():
    turns = Turns()
    for number in range(3):
        turns.put(("a", "first"), f"a first {number}")
        turns.put(("b", "only"), f"b {number}")
    turns.put(("a", "second"), "a second 0")
    assert _drained(turns) == ["a first 0", "b 0", "a second 0", "b 1", "a first 1", "b 2", "a first 2"]


def test_what_is_put_first_is_next_of_its_own_and_of_no_other():
    turns = Turns()
    turns.put(("a",), "a 1")
    turns.put(("b",), "b 0")
    turns.put_first(("a",), "a 0")
    assert (turns.peek(), _drained(turns)) == ("a 0", ["a 0", "b 0", "a 1"])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=60))
def test_nothing_is_lost_and_each_has_his_in_order(steps):
    turns, expected = Turns(), []
    for number, (caller, connection, stays) in enumerate(steps):
        turns.put((caller, connection), (caller, connection, number))
        if stays:
            expected.append((caller, connection, number))
        else:
            assert turns.remove((caller, connection), (caller, connection, number))
    assert not turns.remove((9,), None)
    assert len(turns) == len(expected)
    drained = _drained(turns)
    assert sorted(drained) == sorted(expected)
    for who in {item[:2] for item in expected}:
        assert [item for item in drained if item[:2] == who] == [item for item in expected if item[:2] == who]
