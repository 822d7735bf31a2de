"""The classifiers of scikit-learn behind one interface."""

from __future__ import annotations

import numpy as np
import pytest

from models import ESTIMATORS, ModelError, build_estimator

CLASSES = np.array([2, 5, 17])  # of 21: most classes have no series


def make_series(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy series (N, 8, 10) whose level tells their class."""
    rng = np.random.default_rng(seed)
    labels = CLASSES[np.arange(count) % len(CLASSES)]
    level = np.searchsorted(CLASSES, labels).astype(np.float32)
    noise = rng.normal(scale=0.3, size=(count, 8, 10))
    return (level[:, None, None] + noise).astype(np.float32), labels


@pytest.fixture(scope="module", params=ESTIMATORS)
def trained(request):
    return build_estimator(request.param, seed=0).fit(*make_series(90, seed=0))


def test_separable_classes_are_told_apart(trained):
    x, labels = make_series(30, seed=1)
    predicted = trained.predict(x)
    assert predicted.shape == (30,)
    assert (predicted == labels).mean() >= 0.95


def test_only_classes_seen_in_training_are_predicted(trained):
    x = np.random.default_rng(2).normal(scale=5, size=(50, 8, 10))
    assert set(trained.predict(x)) <= set(CLASSES)


def test_another_length_is_refused(trained):
    with pytest.raises(ModelError, match="trained on 80 values a series and was given 90"):
        trained.predict(np.zeros((3, 9, 10)))


def test_estimators_ask_for_interpolated_series(trained):
    assert trained.interpolates
    assert not trained.uses_doy_flag


def test_run_name():
    assert [build_estimator(name).run_name for name in ESTIMATORS] == ["RF", "SVM", "GBT"]


def test_a_single_class_is_refused():
    x, _ = make_series(9, seed=0)
    with pytest.raises(ModelError, match="RF needs series of 2 classes or more, the labels are all 4"):
        build_estimator("rf").fit(x, np.full(9, 4))


def test_a_class_with_one_series_can_be_trained_on(trained):
    x, labels = make_series(91, seed=3)
    labels[-1] = 20
    predicted = build_estimator(trained.run_name, seed=0).fit(x, labels).predict(x)
    assert set(predicted) <= set(labels) and (predicted == labels)[:-1].mean() > 0.9


def test_the_seed_fixes_the_forest():
    x, labels = make_series(60, seed=0)
    fresh = make_series(200, seed=5)[0] + np.random.default_rng(6).normal(size=(200, 8, 10))
    first, second = (build_estimator("rf", seed=3).fit(x, labels).predict(fresh) for _ in range(2))
    assert (first == second).all()


def test_forest_is_the_published_one():
    forest = build_estimator("RF").classifier
    assert (forest.n_estimators, forest.max_depth) == (500, 25)


def test_a_network_is_no_estimator():
    with pytest.raises(ModelError, match="'stnet' is no estimator: choose one of rf, svm, gbt"):
        build_estimator("stnet")


def test_probabilities_stand_at_the_ids_of_the_classes(trained):
    x, _ = make_series(30, seed=1)
    probability = trained.predict_proba(x, 21)
    assert probability.shape == (30, 21) and set(np.flatnonzero(probability.any(0))) <= set(CLASSES)
    np.testing.assert_allclose(probability.sum(1), 1)
    assert (probability.argmax(1) == trained.predict(x)).all()
    if trained.name == "svm":
        assert set(np.unique(probability)) == {0, 1}
    else:
        np.testing.assert_allclose(probability[:, CLASSES], trained.classifier.predict_proba(x.reshape(30, -1)))
