"""Predictions and features of a classifier: their values, their order, and that batching does not change them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.batches import MappedSeries
from datasets.classmap import CDL20
from datasets.transforms import model_input
from models import ESTIMATORS, ModelError
from tests.support.classifiers import KINDS, SIZE, series_of, small_classifier
from tscls import classifier as module
from tscls.classifier import by_length
from utils.precision import Precision
from utils.runtime.seeding import make_generator

ANY_LENGTH = ("stnet", "transformer of days")
NETWORK_KINDS = [kind for kind in KINDS if kind not in ESTIMATORS]
LENGTHS = [12, 3, 40, 1, 25, 12, 90, 7, 13, 60, 11, 2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return series_of(tmp_path_factory.mktemp("stores") / "store", LENGTHS)


@pytest.fixture(scope="module")
def classifiers():
    return {kind: small_classifier(kind) for kind in KINDS}


def predicted(classifier, series, **options) -> torch.Tensor:
    return torch.cat(list(classifier.predict(series, **options)))


# ---- without randomness


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_equal_series_have_equal_predictions_in_any_batch_and_order(kind, series, classifiers, data):
    classifier = classifiers[kind]
    rows = data.draw(st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=20))
    size = data.draw(st.integers(1, 9))
    alone = torch.cat([predicted(classifier, series.take([row])) for row in range(len(LENGTHS))])
    together = predicted(classifier, series.take(rows), batch_size=size)
    torch.testing.assert_close(together, alone[rows], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ANY_LENGTH)
def test_networks_that_read_days_and_a_mask_see_all_observations(kind, series, classifiers):
    classifier, reader = classifiers[kind], MappedSeries(series, CPU)
    assert classifier.way.takes_any_length
    found = predicted(classifier, series)
    for row, length in enumerate(LENGTHS):
        inputs = model_input(reader.gather([row]), length, "pad", torch.Generator())
        assert inputs.x.shape[1] == length and not inputs.mask.any()
        with torch.no_grad():
            expected = classifier.model(inputs).log_softmax(1)
        torch.testing.assert_close(found[row : row + 1], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ANY_LENGTH])
def test_other_models_see_the_length_they_were_trained_with(kind, series, classifiers):
    """Evenly spaced observations of a longer series; of a shorter one, repeats or padding as in training."""
    classifier, reader = classifiers[kind], MappedSeries(series, CPU)
    _, method, _ = KINDS[kind]
    assert not classifier.way.takes_any_length
    found = predicted(classifier, series)
    for row, length in enumerate(LENGTHS):
        whole = reader.gather([row])
        if method == "interp":
            inputs = model_input(whole, SIZE, "interp", None)
        else:
            size = SIZE if method == "rc" or length > SIZE else length
            chosen = [(2 * i + 1) * length // (2 * size) for i in range(size)]
            kept = whole._replace(
                values=whole.values[:, chosen], doy=whole.doy[:, chosen], length=torch.tensor([size])
            )
            inputs = model_input(kept, SIZE, "pad", torch.Generator())
        if kind in ESTIMATORS:
            expected = torch.from_numpy(classifier.model.predict(inputs.x.numpy()))
            assert found[row].argmax() == expected
        else:
            with torch.no_grad():
                expected = classifier.model(inputs).log_softmax(1)
            torch.testing.assert_close(found[row : row + 1], expected, atol=1e-6, rtol=1e-6)


def test_a_series_longer_than_the_day_table_is_predicted_by_a_transformer_of_positions(tmp_path, classifiers):
    long = series_of(tmp_path / "long", [500, 3])
    for kind in ("transformer of positions", "transformer of days", "stnet"):
        assert predicted(classifiers[kind], long).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one(kind, series, classifiers):
    log_probability = predicted(classifiers[kind], series)
    assert log_probability.shape == (len(LENGTHS), 21) and log_probability.dtype == torch.float32
    torch.testing.assert_close(log_probability.exp().sum(1), torch.ones(len(LENGTHS)))


def test_a_forest_tells_its_probabilities_and_none_is_zero(series, classifiers):
    classifier = classifiers["rf"]
    inputs = classifier.way.whole(MappedSeries(series, CPU).gather(np.arange(len(LENGTHS))))
    probability = np.full((len(LENGTHS), 21), 1e-6)
    forest = classifier.model.classifier
    probability[:, forest.classes_] = forest.predict_proba(inputs.x.flatten(1).numpy()).clip(1e-6)
    probability /= probability.sum(1, keepdims=True)
    np.testing.assert_allclose(predicted(classifier, series).exp().numpy(), probability, rtol=1e-5)


def test_support_vectors_give_their_class_nearly_all(series, classifiers):
    probability = predicted(classifiers["svm"], series).exp()
    torch.testing.assert_close(probability.amax(1), torch.full((len(LENGTHS),), 1 / (1 + 20e-6)))


# ---- with draws


def test_draws_are_averaged_as_probabilities(series):
    """And drawn as ever: a batch of the set's order at a time, by one generator of the seed."""
    classifier = small_classifier("stnet", draws=3)
    classifier.model.eval()
    inputs = MappedSeries(series, CPU)
    generator = make_generator(5, "evaluation", 0)
    expected = []
    with torch.no_grad():
        for batch in (np.arange(8), np.arange(8, 12)):
            drawn = [model_input(inputs.gather(batch), SIZE, "rc", generator) for _ in range(3)]
            expected.append(torch.stack([classifier.model(one).softmax(1) for one in drawn]).mean(0))
    found = predicted(classifier, series, batch_size=8)
    torch.testing.assert_close(found.exp(), torch.cat(expected))
    torch.testing.assert_close(found, predicted(classifier, series, batch_size=8), atol=0, rtol=0)
    classifier.seed = 6
    assert not torch.allclose(found, predicted(classifier, series, batch_size=8))


def test_draws_of_a_call_come_before_the_classifiers(series):
    drawing, whole = small_classifier("stnet", draws=2), small_classifier("stnet")
    assert torch.equal(predicted(drawing, series, draws=0), predicted(whole, series))
    assert torch.equal(predicted(whole, series, draws=2), predicted(drawing, series))


# ---- features


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_features_are_what_the_decoder_is_given(kind, series, classifiers):
    classifier = classifiers[kind]
    features = torch.cat(list(classifier.embed(series, batch_size=5)))
    assert features.shape == (len(LENGTHS), classifier.model.num_features)
    with torch.no_grad():
        expected = classifier.model.decoder(features).log_softmax(1)
    torch.testing.assert_close(expected, predicted(classifier, series), atol=1e-5, rtol=1e-5)


def test_features_of_draws_are_averaged(series):
    classifier = small_classifier("lstm", draws=2)
    classifier.model.eval()
    generator, reader = make_generator(5, "evaluation", 0), MappedSeries(series, CPU)
    batch = reader.gather(np.arange(len(LENGTHS)))
    with torch.no_grad():
        expected = sum(classifier.model.features(model_input(batch, SIZE, "rc", generator)) for _ in range(2)) / 2
    torch.testing.assert_close(torch.cat(list(classifier.embed(series))), expected)


def test_scikit_learn_has_no_features(series, classifiers):
    with pytest.raises(ModelError, match="rf has no features"):
        classifiers["rf"].embed(series)


# ---- piece by piece


def test_pieces_are_bounded_and_in_order(series, classifiers, monkeypatch):
    whole = predicted(classifiers["stnet"], series)
    monkeypatch.setattr(module, "CHUNK", 6)
    pieces = list(classifiers["stnet"].predict(series, batch_size=3))
    assert [len(piece) for piece in pieces] == [6, 6]
    torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-6, rtol=1e-6)
    assert [len(piece) for piece in classifiers["stnet"].predict(series, batch_size=5)] == [5, 5, 2]
    assert [len(piece) for piece in classifiers["stnet"].predict(series, batch_size=100)] == [12]


def test_no_series_give_no_piece(series, classifiers):
    assert list(classifiers["stnet"].predict(series.take([]))) == []


def test_no_piece_is_computed_before_it_is_asked_for(series, classifiers, monkeypatch):
    gathered, gather = [], MappedSeries.gather
    monkeypatch.setattr(MappedSeries, "gather", lambda self, rows: gathered.append(len(rows)) or gather(self, rows))
    monkeypatch.setattr(module, "CHUNK", 4)
    pieces = classifiers["stnet"].predict(series, batch_size=2)
    assert gathered == []
    next(pieces)
    assert gathered == [2, 2]


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    size=st.integers(1, 20),
    limit=st.integers(1, 3000),
)
@settings(max_examples=60, deadline=None)
def test_batches_by_length_hold_every_series_and_bound_the_observations(lengths, size, limit):
    lengths = np.array(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OBSERVATIONS", limit)
        batches = by_length(np.arange(len(lengths))[::-1], lengths, size)
    order = np.concatenate(batches)
    assert sorted(order) == list(range(len(lengths))) and (np.diff(lengths[order]) <= 0).all()
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        padded = len(batch) * lengths[batch].max()
        assert len(batch) <= size and (padded <= limit or len(batch) == 1)
        is_full = len(batch) == size or padded + lengths[batch].max() > limit
        assert following is None or is_full


# ---- what it is


def test_a_network_predicts_as_in_evaluation_and_keeps_no_gradients(series, classifiers):
    classifier = classifiers["stnet"]
    before = predicted(classifier, series)
    classifier.model.train()
    for piece in classifier.predict(series):
        assert not piece.requires_grad and torch.equal(piece, before)


def test_gradients_are_on_between_pieces(series, classifiers):
    for _ in classifiers["stnet"].predict(series):
        assert torch.is_grad_enabled()


def test_mixed_precision_is_that_of_the_call(series, classifiers):
    whole = predicted(classifiers["stnet"], series)
    half = predicted(classifiers["stnet"], series, precision=Precision("bf16", CPU))
    assert not torch.equal(whole, half) and half.dtype == torch.float32
    torch.testing.assert_close(whole, half, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("kind", ANY_LENGTH)
def test_mixed_precision_reaches_the_features(kind, series, classifiers):
    whole, half = (
        torch.cat(list(classifiers[kind].embed(series, precision=precision)))
        for precision in (None, Precision("bf16", CPU))
    )
    assert not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, atol=0.05, rtol=0.05)



@pytest.mark.parametrize("kind", ["stnet", "rf"])
def test_a_classifier_can_be_sent_to_another_process(kind, series, classifiers):
    sent = pickle.loads(pickle.dumps(classifiers[kind]))
    assert torch.equal(predicted(sent, series), predicted(classifiers[kind], series))


def test_names_of_classes(classifiers):
    classifier = small_classifier("stnet")
    assert classifier.names == CDL20.names and classifier.num_classes == 21
    classifier.classmap = None
    assert classifier.names == tuple(map(str, range(21)))
    assert classifier.num_parameters == 122_549 and classifiers["rf"].num_parameters is None
    assert (classifier.name, classifiers["svm"].name) == ("stnet", "svm")
