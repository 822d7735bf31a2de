"""Ctrl-C and SIGTERM as requests."""

from __future__ import annotations

import signal

import pytest

from utils.runtime.signals import stop_requests

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_request_is_noted(number):
    with stop_requests() as is_to_stop:
        assert not is_to_stop()
        signal.raise_signal(number)
        assert is_to_stop()


def test_the_second_acts_as_it_always_does():
    with pytest.raises(KeyboardInterrupt):
        with stop_requests():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


def test_what_was_before_is_so_again():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError):
        with stop_requests():
            assert signal.getsignal(signal.SIGTERM) not in before
            raise ValueError
    assert [signal.getsignal(number) for number in SIGNALS] == before
