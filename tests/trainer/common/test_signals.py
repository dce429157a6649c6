"""Signals that ask for a stop."""

import signal

import pytest

from bgan.trainer.common.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_the_next_acts_as_usual(number):
    heard = []
    before = signal.signal(number, lambda *arguments: heard.append(arguments[0]))
    try:
        with StopSignals() as signals:
            signal.raise_signal(number)
            assert (signals.received, heard) == (number, [])
            signal.raise_signal(number)
            assert heard == [number]
    finally:
        signal.signal(number, before)


def test_a_hangup_that_is_ignored_stays_ignored():
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
