"""Signals as requests: to stop, which a training loop grants between two steps, and to save."""

from __future__ import annotations

import signal

import pytest

from utils.errors import Stopped, exit_cleanly
from utils.runtime.signals import SAVE, STOP, Requests


@pytest.mark.parametrize("number", STOP)
def test_in_training_the_first_signal_is_recorded(number):
    with Requests().heard() as requests, pytest.raises(Stopped), requests.deferred():
        assert not requests.stop
        signal.raise_signal(number)
        assert requests.stop == number and not requests.save


@pytest.mark.parametrize("first", STOP)
@pytest.mark.parametrize("second", STOP)
def test_a_second_signal_ends_the_process_at_once(first, second):
    with Requests("; go on").heard() as requests, requests.deferred():
        signal.raise_signal(first)
        with pytest.raises(Stopped, match="^stopped; go on$") as ended:
            signal.raise_signal(second)
        requests.stop = 0
    assert ended.value.number == second


@pytest.mark.parametrize("number", STOP)
def test_outside_of_training_so_does_the_first(number):
    with Requests("; go on").heard() as requests:
        with requests.deferred():
            assert not requests.stop
        with pytest.raises(Stopped, match="^stopped; go on$") as ended:
            signal.raise_signal(number)
    assert ended.value.number == number


@pytest.mark.parametrize("number", STOP)
def test_a_request_that_training_has_not_granted_ends_the_process_after_it(number):
    with Requests("; go on").heard() as requests:
        with pytest.raises(Stopped, match="^stopped; go on$") as ended:
            with requests.deferred():
                signal.raise_signal(number)
        assert ended.value.number == number
        with pytest.raises(ZeroDivisionError):
            with requests.deferred():
                requests.stop = 1 / 0
        requests.stop = 0
        with requests.deferred():
            signal.raise_signal(number)
            requests.stop = 0  # granted


@pytest.mark.parametrize("second", STOP)
def test_in_a_worker_a_second_signal_is_no_more_than_the_first(second):
    with pytest.raises(Stopped), Requests(is_worker=True).heard() as requests, requests.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(second)
        assert requests.stop == second


def test_sigusr1_asks_to_save():
    with Requests().heard() as requests:
        assert not requests.save
        signal.raise_signal(SAVE)
        assert requests.save and not requests.stop
        requests.save = False
        with requests.deferred():
            signal.raise_signal(SAVE)
            signal.raise_signal(signal.SIGTERM)
            assert requests.save and requests.stop == signal.SIGTERM
            requests.stop = 0


def test_another_handler_of_sigterm_is_called_where_the_process_would_end():
    """That of the watchdog, which tells whether a peer has died."""
    heard, before = [], signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with Requests().heard() as requests, requests.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert not heard and requests.stop
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
            requests.stop = 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_previous_handlers_are_restored():
    numbers = (*STOP, SAVE)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(ValueError):
        with Requests().heard() as requests, requests.deferred():
            assert not {signal.getsignal(number) for number in numbers} & set(before)
            raise ValueError
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_script_exits_as_shells_expect(number, code, capsys):
    @exit_cleanly
    def main():
        with Requests("; go on").heard():
            signal.raise_signal(number)

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code and capsys.readouterr().err == "stopped; go on\n"


def test_an_interrupt_of_another_kind_exits_with_130(capsys):
    @exit_cleanly
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"):
        main()
    assert capsys.readouterr().err == "interrupted\n"
