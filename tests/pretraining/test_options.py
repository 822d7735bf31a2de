"""The options of the pretexts: defaults, what is refused, and that a pretext has what was given."""

from __future__ import annotations

from functools import partial

import pytest

import main_moco
from moco.loader import two_views
from models import build_model
from pretraining import PRETEXTS, add_arguments
from utils.errors import Parser, UsageError

# option: default, another value, one that is refused
OPTIONS = {
    "--simclr-dim": (128, 5, 0),
    "--simclr-t": (0.1, 0.3, 0),
    "--barlow-dim": (512, 6, 0),
    "--barlow-weight": (0.005, 0.2, 0),
    "--bert-probability": (0.15, 0.3, 1.5),
    "--bert-noise": (0.5, 0.25, 0),
    "--supcon-dim": (128, 7, 0),
    "--supcon-t": (0.1, 0.4, 0),
    "--sum-weight": (1.0, 0.5, 0),
}
IDENTITIES = {
    "simclr": {"dim": 5, "T": 0.3},
    "barlow": {"dim": 6, "weight": 0.2},
    "bert": {"probability": 0.3, "noise": 0.25},
    "supcon": {"dim": 7, "T": 0.4},
}


def arguments(*flags: object):
    return main_moco.get_args(["transformer", *map(str, flags)])


def name_of(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def test_all_options_have_their_defaults_and_are_explained():
    parser = Parser()
    add_arguments(parser)
    actions = {action.option_strings[0]: action for action in parser._actions if action.dest != "help"}
    assert {option: action.default for option, action in actions.items()} == {o: d for o, (d, _, _) in OPTIONS.items()}
    assert all(action.help for action in actions.values())
    assert not any(isinstance(action.default, str) for action in actions.values())


@pytest.mark.parametrize("option", OPTIONS)
def test_a_value_is_read_as_a_number_in_its_range(option):
    _, other, wrong = OPTIONS[option]
    assert getattr(arguments(option, other), name_of(option)) == other
    least = 1 if isinstance(other, int) else 1e-9
    assert getattr(arguments(option, least), name_of(option)) == least
    with pytest.raises(UsageError, match=option):
        arguments(option, wrong)


@pytest.mark.parametrize("pretext", PRETEXTS)
@pytest.mark.parametrize("method", ["rc", "pad"])
def test_a_pretext_has_what_was_given(data_root, pretext, method):
    given = [word for option, (_, other, _) in OPTIONS.items() for word in (option, other)]
    flags = ("--datapath", data_root, "-seq", 9, "--moco-k", 600, *(["--rc"] if method == "rc" else []))
    settings = vars(arguments(*given, *flags))
    encoder, views = build_model("transformer", use_doy=True), partial(two_views, size=9, method=method)
    made = PRETEXTS[pretext](encoder, views, settings)
    assert made.name == pretext
    if pretext in IDENTITIES:
        assert made.identity() == IDENTITIES[pretext] and made.encoder_q is encoder
    if pretext == "bert":
        assert (made.size, made.method) == (9, method)
    if pretext in ("simclr", "barlow", "supcon"):
        assert made.augment is views
    if "+" in pretext:
        assert made.weights == [1, 0.5] and made.parts.moco.K == 600
