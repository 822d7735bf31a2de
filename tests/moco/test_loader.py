"""The two views of a batch that pre-training compares."""

from __future__ import annotations

import pytest
import torch

from datasets.bands import MEAN, STD
from datasets.transforms import (
    Series,
    model_input,
    remove,
    spectral_noise,
    standardise,
    temporal_shift,
    vegetation_weight,
)
from moco.loader import PUBLISHED, STRONGER, Augmentation, add_view_options, augmentation_of, two_views, view
from tests.support.series import make_batch, seeded
from utils.errors import Parser, UsageError


def test_a_view_is_the_published_steps_in_their_order():
    series, generator = make_batch([20, 9, 14]), seeded(3)
    expected = remove(spectral_noise(temporal_shift(series, generator), generator), generator)
    expected = model_input(expected, 10, "rc", generator)
    for part, other in zip(view(series, seeded(3), size=10, method="rc"), expected, strict=True):
        assert part is other is None or torch.equal(part, other)


def test_views_are_independent():
    """A series of one observation is neither shifted nor shortened, so what is left of a view is its noise."""
    one = torch.ones(20_000, 1, dtype=torch.int64)
    series = Series(torch.full((20_000, 1, 10), 0.2), one * 100, one[:, 0])
    plain = standardise(torch.full((10,), 0.2))
    noisy = [(made.x[:, 0] - plain).abs().amax(1) > 1e-6 for made in two_views(series, seeded(), size=1, method="rc")]
    first, second = (touched.double().mean().item() for touched in noisy)
    both = (noisy[0] & noisy[1]).double().mean().item()
    assert first == pytest.approx(0.15, abs=0.01) and second == pytest.approx(0.15, abs=0.01)
    assert both == pytest.approx(0.0225, abs=0.005)


def test_views_differ_and_are_repeatable():
    series = make_batch([25] * 16)
    first, second = two_views(series, seeded(1), size=20, method="pad")
    assert not torch.equal(first.x, second.x)
    again, _ = two_views(series, seeded(1), size=20, method="pad")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_view_weighs_by_its_own_values():
    series = make_batch([25] * 16)
    made, _ = two_views(series, seeded(1), size=20, method="pad")
    values = made.x * torch.from_numpy(STD) + torch.from_numpy(MEAN)
    torch.testing.assert_close(made.weight, vegetation_weight(values, made.mask), atol=1e-5, rtol=1e-4)


def test_stronger_views_are_stronger():
    series = Series(torch.full((2000, 30, 10), 0.2), torch.arange(1, 31).repeat(2000, 1), torch.full((2000,), 30))
    made, _ = two_views(series, seeded(), size=30, method="pad", augmentation=STRONGER)
    kept, plain = ~made.mask, standardise(torch.full((10,), 0.2))
    assert kept.double().mean().item() == pytest.approx(1 - STRONGER.removal_probability, abs=0.01)
    touched = ((made.x - plain).abs() > 1e-5).any(-1)[kept]
    assert touched.double().mean().item() == pytest.approx(STRONGER.noise_probability, abs=0.01)
    noise = (made.x - plain)[kept][touched]
    assert noise.square().mean().sqrt().item() == pytest.approx(STRONGER.noise_scale, rel=0.02)
    assert all(strong > weak for strong, weak in zip(STRONGER[:3], PUBLISHED[:3], strict=True))
    assert STRONGER.shift_probability == PUBLISHED.shift_probability == 0.5


@pytest.mark.parametrize(
    ("step", "alone"),
    [("shift", temporal_shift), ("noise", spectral_noise), ("removal", remove)],
)
def test_a_view_with_one_step_alone_has_only_that_step(step, alone):
    """The same random numbers are drawn, whatever is left out."""
    series, off = make_batch([20, 9, 14] * 20), {f"{name}_probability": 0.0 for name in ("shift", "noise", "removal")}
    strength = PUBLISHED._replace(**off)._replace(**{f"{step}_probability": 0.9})
    made = view(series, seeded(3), size=10, method="rc", augmentation=strength)
    generator, expected = seeded(3), series
    for function in (temporal_shift, spectral_noise, remove):
        expected = function(expected, generator, 0.9 if function is alone else 0.0)
    for part, other in zip(made, model_input(expected, 10, "rc", generator), strict=True):
        assert part is other is None or torch.equal(part, other)
    none = view(series, seeded(3), size=10, method="rc", augmentation=PUBLISHED._replace(**off))
    assert not torch.equal(made.x, none.x)


def test_options_of_the_views_are_explained_and_have_limits():
    parser = Parser()
    add_view_options(parser)
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    assert all(action.help for action in actions.values())
    valued = {name: action.metavar for name, action in actions.items() if action.nargs != 0}
    assert valued == {**{f"{name}_probability": "P" for name in ("shift", "noise", "removal")}, "noise_scale": "SD"}
    assert all(f"(published: {getattr(PUBLISHED, name)})" in actions[name].help for name in valued)
    assert set(actions) - set(valued) == {"aug_plus", "no_shift", "no_noise", "no_removal"}
    for name in valued:
        option = f"--{name.replace('_', '-')}"
        assert getattr(parser.parse_args([option, "0.25"]), name) == 0.25
        with pytest.raises(UsageError, match=option):
            parser.parse_args([option, "-1"])


def test_what_the_options_do_not_say_is_left_to_the_default():
    parser, off = Parser(), Augmentation(0.0, 0.5, 0.0, 0.5)
    add_view_options(parser)

    def chosen(*argv: str, default: Augmentation = off) -> Augmentation:
        return augmentation_of(vars(parser.parse_args(argv)), default)

    assert chosen() == off and chosen("--noise-probability", "0.3") == off._replace(noise_probability=0.3)
    assert chosen("--no-shift") == off._replace(shift_probability=0.0) and chosen("--aug-plus") == STRONGER
    assert augmentation_of(vars(parser.parse_args([]))) == PUBLISHED
