"""Ctrl-C and SIGTERM as requests to stop."""

from __future__ import annotations

import signal

import pytest

from utils.runtime.signals import stop_requests

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_recorded(number):
    with stop_requests() as is_to_stop:
        assert not is_to_stop()
        signal.raise_signal(number)
        assert is_to_stop()


def test_the_second_signal_has_its_usual_effect():
    with pytest.raises(KeyboardInterrupt):
        with stop_requests():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


def test_the_previous_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError):
        with stop_requests():
            assert signal.getsignal(signal.SIGTERM) not in before
            raise ValueError
    assert [signal.getsignal(number) for number in SIGNALS] == before
