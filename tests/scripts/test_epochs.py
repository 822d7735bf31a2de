"""Which series an epoch of either script shows its networks, seen by the networks themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.bands import MEAN, STD
from datasets.classmap import CDL20, write_classmap
from models import Network
from tests.support.layout import store_of
from tests.support.reference import Data
from tests.support.runs import pretrain, train

FIRST = {"unlabelled": 0, "train": 0, "valid": 100, "eval": 200}  # number of the first series of each split
COUNTS = {"unlabelled": 70, "train": 45, "valid": 11, "eval": 30}
EPOCHS = 3


class Seen(NamedTuple):
    """A batch that a network was given."""

    network: nn.Module
    is_training: bool
    numbers: list[int]  # of the series
    values: Tensor  # (B, S), mean reflectance less that of the series, in DN; NaN at padding
    doy: Tensor


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Series that can be told apart in any order and length: the mean of the bands of series number n is 500 + 20 n."""
    root, generator = tmp_path_factory.mktemp("numbered"), np.random.default_rng(0)
    for split, count in COUNTS.items():
        series = []
        for number in range(FIRST[split], FIRST[split] + count):
            length = int(generator.integers(12, 20))
            array = np.full((length, 12), 500 + 20 * number, dtype=float)
            array[:, :10] += np.arange(-45, 55, 10)
            array[:, -1] = np.sort(generator.choice(np.arange(1, 367), length, replace=False))
            series.append(array)
        labels = None if split == "unlabelled" else [number % 4 for number in range(count)]
        store_of(root / "2019" / split, series, labels)
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


@pytest.fixture
def seen():
    """Every batch that any network is given, in order."""
    batches = []

    def note(module: nn.Module, arguments: tuple) -> None:
        if isinstance(module, Network):
            x, mask, doy, _ = arguments[0]
            values = (x * torch.from_numpy(STD) + torch.from_numpy(MEAN)) * 1e4
            values = values.mean(-1).masked_fill(mask, torch.nan) if mask is not None else values.mean(-1)
            middle = values.nanmedian(1, keepdim=True).values  # most observations have no noise
            numbers = ((middle[:, 0] - 500) / 20).round().int().tolist()
            batches.append(Seen(module, module.training, numbers, values - middle, doy))

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    yield batches
    handle.remove()


def in_epochs(batches: list[Seen], epochs: int = EPOCHS) -> list[list[Seen]]:
    """The same number of batches for each epoch."""
    assert batches and len(batches) % epochs == 0
    size = len(batches) // epochs
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def numbers(batches: list[Seen]) -> list[int]:
    return [number for batch in batches for number in batch.numbers]


def of_encoder(batches: list[Seen], which: int) -> list[Seen]:
    """The batches of the query encoder (0), which is called first, or of the key encoder (1)."""
    networks = list({id(batch.network): batch.network for batch in batches}.values())
    assert len(networks) == 2
    return [batch for batch in batches if batch.network is networks[which]]


def test_pretraining_shows_each_training_series_once_an_epoch_and_no_other(root, tmp_path, seen):
    """Of 70 series 63 are trained on, in batches of 9, and the other 7 are what is evaluated."""
    pretrain(root, tmp_path, "-e", EPOCHS, "-b", 9)
    evaluated = [batch for batch in seen if not batch.is_training]
    held_out = set(numbers(evaluated))
    assert len(held_out) == 7
    for which in (0, 1):
        orders = []
        for epoch in in_epochs(of_encoder([batch for batch in seen if batch.is_training], which)):
            assert [len(batch.numbers) for batch in epoch] == [9] * 7
            assert sorted(numbers(epoch)) == sorted(set(range(70)) - held_out)
            orders.append(tuple(numbers(epoch)))
        assert len(set(orders)) == EPOCHS
        for epoch in in_epochs(of_encoder(evaluated, which)):
            assert sorted(numbers(epoch)) == sorted(held_out)


def test_pretraining_leaves_out_an_incomplete_batch_of_other_series_each_epoch(root, tmp_path, seen):
    pretrain(root, tmp_path, "-e", EPOCHS)
    left_out = set()
    for epoch in in_epochs(of_encoder([batch for batch in seen if batch.is_training], 0)):
        assert [len(batch.numbers) for batch in epoch] == [16] * 3 and len(set(numbers(epoch))) == 48
        left_out.add(frozenset(range(70)) - frozenset(numbers(epoch)))
    assert len(left_out) == EPOCHS


def test_the_seed_chooses_what_is_held_out(root, tmp_path, seen):
    held_out = []
    for number, seed in enumerate((1, 1, 2)):
        pretrain(root, tmp_path / str(number), "--seed", seed)
        held_out.append({number for batch in seen if not batch.is_training for number in batch.numbers})
        seen.clear()
    assert held_out[0] == held_out[1] != held_out[2]


def test_query_and_key_are_of_the_same_series_and_independent_views(root, tmp_path, seen):
    """Each of 15 % removed and 15 % with noise, whatever happened to the same observation in the other view."""
    pretrain(root, tmp_path, "-e", EPOCHS, "-b", 9)
    days = [doy.tolist() for _, doy in Data(root / "2019" / "unlabelled").series]
    for is_training in (True, False):
        batches = [batch for batch in seen if batch.is_training == is_training]
        pairs = zip(of_encoder(batches, 0), of_encoder(batches, 1), strict=True)
        kept_q, noisy_q, kept_k, noisy_k = np.concatenate([fates(days, *pair) for pair in pairs]).T
        few = 0.03 if is_training else 0.1  # of 63 series in 3 epochs, or of 7 with the same views each time
        assert [kept_q.mean(), kept_k.mean()] == pytest.approx([0.85] * 2, abs=few)
        assert [noisy_q[kept_q].mean(), noisy_k[kept_k].mean()] == pytest.approx([0.15] * 2, abs=few)
        assert [kept_k[~kept_q].mean(), kept_q[~kept_k].mean()] == pytest.approx([0.85] * 2, abs=2 * few)
        both = noisy_k[noisy_q & kept_k].mean(), noisy_q[noisy_k & kept_q].mean()
        assert both == pytest.approx([0.15] * 2, abs=2 * few)


def fates(days: list[list[int]], query: Seen, key: Seen) -> np.ndarray:
    """What became of every observation of a batch, (N, 4): kept in the query view, noisy in it; and of the key view."""
    assert query.numbers == key.numbers
    rows = []
    for i, number in enumerate(query.numbers):
        views = []
        for batch in (query, key):
            real = ~batch.values[i].isnan()
            noise = (batch.values[i, real].abs() > 5).tolist()
            views.append(dict(zip(batch.doy[i, real].tolist(), noise, strict=True)))
        rows += [[found for view in views for found in (day in view, view.get(day, False))] for day in days[number]]
    return np.array(rows)


def test_views_are_drawn_anew_every_epoch_and_those_of_the_evaluation_are_not(root, tmp_path, seen):
    pretrain(root, tmp_path, "-e", EPOCHS, "-b", 63, "--moco-k", 63)
    for is_training in (True, False):
        views = []
        for batch in of_encoder([batch for batch in seen if batch.is_training == is_training], 0):
            views.append(batch.doy[np.argsort(batch.numbers)])
        assert len(views) == EPOCHS
        assert all(torch.equal(views[0], other) == (not is_training) for other in views[1:])


@pytest.mark.parametrize(("recipe", "joined"), [("published", False), ("few-label", True)])
def test_training_shows_each_series_once_an_epoch_and_valid_where_the_recipe_joins_it(
    root, tmp_path, seen, no_pictures, recipe, joined
):
    train(root, tmp_path, "--useall", "--recipe", recipe, "-e", EPOCHS)
    expected = list(range(45)) + list(range(100, 111)) * joined
    orders = []
    for epoch in in_epochs([batch for batch in seen if batch.is_training]):
        assert sorted(numbers(epoch)) == expected
        assert [len(batch.numbers) for batch in epoch] == ([19, 19, 18] if joined else [16, 16, 13])
        orders.append(tuple(numbers(epoch)))
    assert len(set(orders)) == EPOCHS
    evaluated = {number for batch in seen if not batch.is_training for number in batch.numbers}
    assert evaluated == set(range(200, 230)) | (set() if joined else set(range(100, 111)))


@pytest.mark.parametrize("recipe", ["published", "few-label"])
def test_the_seed_chooses_the_order_of_training(root, tmp_path, seen, no_pictures, recipe):
    train(root, tmp_path, "--useall", "--recipe", recipe, "--seeds", 1, 2)
    first, second = (numbers(run) for run in in_epochs([batch for batch in seen if batch.is_training], 2))
    assert first != second and sorted(first) == sorted(second)
