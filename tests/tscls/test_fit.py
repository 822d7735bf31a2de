"""Training a network: that it learns, on which series, in which order, and what it is validated by."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.catalog import Selection, open_classmap, open_labelled
from datasets.store import join
from tscls.classifier import fresh_classifier, load_classifier
from tscls.estimators import training_input
from tscls.evaluation import scores_on
from tscls.inputs import LabelledSeries
from tscls.recipe import PUBLISHED, few_label_recipe
from tscls.training import HUGE_LOSS, Training, check_batch, fit, fit_estimator, warn_if_huge
from utils.errors import UsageError
from utils.precision import Precision
from utils.results.logs import RunLog
from utils.results.progress import Progress
from utils.runtime.distributed import World

CPU = World()
OFF = Precision("off", torch.device("cpu"))


def fitted(data_root, folder, recipe, method="rc", precision=OFF, **options):
    """A small STNet of all series of the tiny root, trained; its log and the splits."""
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    torch.manual_seed(0)
    settings = {"sequencelength": 12, "init": "torch", "seed": 5}
    classifier = fresh_classifier("stnet", open_classmap(data_root), method, **settings)
    return fit(classifier, splits, recipe, folder, lambda _: RunLog(folder, {}), precision, CPU, **options), splits


@pytest.fixture
def batches(monkeypatch):
    """The batches of positions of every epoch."""
    seen, stream = [], LabelledSeries.stream
    monkeypatch.setattr(
        LabelledSeries, "stream", lambda self, given: seen.append((len(self), given)) or stream(self, given)
    )
    return seen


def test_training_learns_separable_classes(data_root, tmp_path):
    log, splits = fitted(data_root, tmp_path / "run", few_label_recipe(110, epochs=15))
    losses = [float(row["train_loss"]) for row in log.rows]
    assert losses[-1] < 0.5 * losses[0]
    assert scores_on(load_classifier(tmp_path / "run", "cpu"), splits.eval, CPU)["oa"] > 0.8


@pytest.mark.parametrize(("patience", "count"), [(10, 90), (None, 110)])
def test_every_series_is_used_once_an_epoch_in_another_order(data_root, tmp_path, batches, patience, count):
    """Those of valid only where the recipe watches nothing."""
    recipe = replace(PUBLISHED, epochs=3, batchsize=16, patience=patience)
    fitted(data_root, tmp_path / "run", recipe)
    orders = [np.concatenate(given) for _, given in batches]
    assert [size for size, _ in batches] == [count] * 3
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3 and not any((np.diff(order) > 0).all() for order in orders)


@pytest.mark.parametrize(("batchsize", "sizes"), [(44, [44, 44, 2]), (89, [90])])
def test_a_last_batch_of_two_series_is_kept_and_one_of_one_joins_the_one_before(
    data_root, tmp_path, batches, batchsize, sizes
):
    fitted(data_root, tmp_path / "run", replace(PUBLISHED, epochs=1, batchsize=batchsize))
    assert [len(batch) for batch in batches[0][1]] == sizes


@pytest.mark.parametrize("print_freq", [1, 4])
def test_steps_are_logged_as_often_as_asked_for(data_root, tmp_path, monkeypatch, print_freq):
    """Batches of 16 of 90 series, twice: 12 steps."""
    logged, shown = [], []
    monkeypatch.setattr(RunLog, "scalars", lambda self, group, values, step: logged.append((group, values, step)))
    monkeypatch.setattr(Progress, "step", lambda self, *told: shown.append(told))
    recipe = replace(PUBLISHED, epochs=2, batchsize=16)
    start = time.monotonic()
    log, _ = fitted(data_root, tmp_path / "run", recipe, print_freq=print_freq)
    slowest = 16 / (time.monotonic() - start)
    steps = list(range(print_freq, 13, print_freq))
    assert [(group, step) for group, _, step in logged] == [("step", step) for step in steps]
    assert [told[:3] for told in shown] == [((step - 1) // 6, (step - 1) % 6 + 1, 6) for step in steps]
    assert [told[3] for told in shown] == [values["loss"] for _, values, _ in logged]
    assert all(slowest < told[4] < 1e6 for told in shown)
    if print_freq == 1:
        sizes = [16] * 5 + [10]
        losses = [told[3] for told in shown]
        for epoch in (0, 1):
            mean = np.average(losses[6 * epoch : 6 * epoch + 6], weights=sizes)
            assert float(log.rows[epoch]["train_loss"]) == pytest.approx(mean, rel=1e-5)


def test_the_logged_speed_is_of_all_series_of_the_epoch(data_root, tmp_path):
    start = time.monotonic()
    log, _ = fitted(data_root, tmp_path / "run", replace(PUBLISHED, epochs=1, batchsize=16))
    row = log.rows[0]
    assert 0 < float(row["seconds"]) < time.monotonic() - start
    assert float(row["series_per_s"]) * float(row["seconds"]) == pytest.approx(90, rel=1e-3)


def test_validation_is_by_the_published_draw_whatever_the_test_is_by(data_root, tmp_path):
    log, splits = fitted(data_root, tmp_path / "run", replace(PUBLISHED, epochs=1, batchsize=16, draws=0))
    saved = load_classifier(tmp_path / "run", "cpu")
    assert saved.draws == 0
    expected = scores_on(saved, splits.valid, CPU, draws=1)["loss"]
    assert float(log.rows[0]["valid_loss"]) == pytest.approx(expected, rel=1e-5)
    assert scores_on(saved, splits.valid, CPU)["loss"] != pytest.approx(expected, rel=1e-4)


def test_validation_has_the_precision_of_training(data_root, tmp_path):
    bf16 = Precision("bf16", torch.device("cpu"))
    log, splits = fitted(data_root, tmp_path / "run", replace(PUBLISHED, epochs=1, batchsize=16), precision=bf16)
    saved, found = load_classifier(tmp_path / "run", "cpu"), float(log.rows[0]["valid_loss"])
    in_bf16, in_float32 = (
        scores_on(saved, splits.valid, CPU, draws=1, precision=precision)["loss"] for precision in (bf16, OFF)
    )
    assert found == pytest.approx(in_bf16, rel=2e-6)  # the log has six digits
    assert abs(in_float32 - in_bf16) > 1e-5 * in_bf16


@pytest.mark.parametrize("patience", [10, None])
def test_an_estimator_is_trained_on_what_a_network_is(data_root, tmp_path, patience):
    """On the series of valid too, only where the recipe watches nothing."""
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    classifier = fresh_classifier("rf", open_classmap(data_root), "interp", sequencelength=12, seed=5)
    given = []
    classifier.model.fit = lambda *arrays: given.append(arrays)
    recipe = replace(PUBLISHED, patience=patience)
    assert fit_estimator(classifier, splits, recipe, lambda _: None) is None
    expected = splits.train if patience else join((splits.train, splits.valid))
    ((x, labels),) = given
    assert len(labels) == (90 if patience else 110)
    np.testing.assert_array_equal(x, training_input(expected, classifier.way, 5))
    np.testing.assert_array_equal(labels, expected.labels)


def test_a_batch_that_gives_no_rank_two_series_is_refused(data_root):
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    classifier = fresh_classifier("stnet", open_classmap(data_root), "rc", sequencelength=12, init="torch")
    with pytest.raises(UsageError, match="-b 1: 1 ranks need at least 2 series each"):
        Training(classifier, splits, replace(PUBLISHED, batchsize=1), OFF, CPU)
    Training(classifier, splits, replace(PUBLISHED, batchsize=2), OFF, CPU)


def test_each_of_several_ranks_gets_two_series_of_a_batch():
    two = World(0, 2)
    check_batch(4, two)
    with pytest.raises(UsageError, match="-b 3: 2 ranks need at least 2 series each"):
        check_batch(3, two)


def test_a_loss_beyond_the_limit_is_warned_of(capsys):
    warn_if_huge({"train_loss": HUGE_LOSS, "valid_loss": HUGE_LOSS})
    warn_if_huge({"train_loss": 0.1})
    assert capsys.readouterr().out == ""
    warn_if_huge({"train_loss": 0.1, "valid_loss": 1.1 * HUGE_LOSS})
    assert capsys.readouterr().out.startswith("warning: the validation loss is 1.1e+06 at the end of training")
