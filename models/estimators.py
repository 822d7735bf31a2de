"""Classifiers of scikit-learn by name, with one interface.

They take a series of S observations as one vector of S * 10 values in which the position stands for the day, so give
them series interpolated to a regular grid of days. To add one, add a line to ``_ESTIMATORS``: a name, and a function
that builds the classifier from a seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from models.errors import ModelError
from models.random_forest import random_forest

if TYPE_CHECKING:  # each function imports what it needs, as importing scikit-learn takes a second
    from sklearn.base import ClassifierMixin
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline


def support_vectors(seed: int) -> Pipeline:
    """RBF support vector machine, classes weighted inversely to their frequency; it is deterministic and needs no seed.

    C. Cortes and V. Vapnik, "Support-vector networks", Machine Learning 20 (1995), 273-297.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(class_weight="balanced"))


def boosted_trees(seed: int) -> HistGradientBoostingClassifier:
    """Gradient boosting on binned values, classes weighted inversely to their frequency.

    J. H. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29 (2001),
    1189-1232. No early stopping: it would hold out samples, and a class may have only one.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(class_weight="balanced", early_stopping=False, random_state=seed)


_ESTIMATORS = {
    "rf": random_forest,
    "svm": support_vectors,
    "gbt": boosted_trees,
}

ESTIMATORS = tuple(_ESTIMATORS)


class SeriesEstimator:
    """A scikit-learn classifier that takes series x (N, S, 10).

    Labels are class ids. Classes without training series are allowed and never predicted.
    """

    run_name: str
    interpolates = True
    uses_doy_flag = False
    takes_any_length = False

    def __init__(self, name: str, classifier: ClassifierMixin):
        self.name, self.run_name = name, name.upper()
        self.classifier = classifier

    def fit(self, x: ArrayLike, labels: ArrayLike) -> SeriesEstimator:
        """Train on series x (N, S, 10) and labels (N,); ModelError if all labels are of one class."""
        labels = np.asarray(labels)
        classes = np.unique(labels)
        if len(classes) == 1:
            raise ModelError(f"{self.run_name} needs series of 2 classes or more, the labels are all {classes[0]}")
        self.classifier.fit(flatten(x), labels)
        return self

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Class ids (N,) of series x (N, S, 10); ModelError if S is not the length used in training."""
        return self.classifier.predict(self._checked(x))

    def predict_proba(self, x: ArrayLike, num_classes: int) -> np.ndarray:
        """Probabilities (N, num_classes) of series x (N, S, 10), 0 for classes not seen in training.

        A support vector machine has none: the class that it predicts gets 1.
        """
        probability = np.zeros((len(x), num_classes))
        if hasattr(self.classifier, "predict_proba"):
            probability[:, self.classifier.classes_] = self.classifier.predict_proba(self._checked(x))
        else:
            probability[np.arange(len(x)), self.predict(x)] = 1
        return probability

    def _checked(self, x: ArrayLike) -> np.ndarray:
        """Series x as vectors, checked to have the length used in training."""
        x = flatten(x)
        if x.shape[1] != self.classifier.n_features_in_:
            raise ModelError(
                f"{self.run_name} was trained on {self.classifier.n_features_in_} values a series and was given "
                f"{x.shape[1]}: use the sequence length of the training"
            )
        return x


def flatten(x: ArrayLike) -> np.ndarray:
    """Series (N, S, 10) as vectors (N, S * 10)."""
    x = np.asarray(x)
    return x.reshape(len(x), -1)


def build_estimator(name: str, *, seed: int = 111) -> SeriesEstimator:
    """Build an estimator by name, in any letter case; ``seed`` fixes its random numbers.

    ModelError for a name that is not one of ``ESTIMATORS``.
    """
    if name.lower() not in ESTIMATORS:
        raise ModelError(f"{name!r} is no estimator: choose one of {', '.join(ESTIMATORS)}")
    return SeriesEstimator(name.lower(), _ESTIMATORS[name.lower()](seed))
