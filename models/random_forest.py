"""Random forest: L. Breiman, "Random forests", Machine Learning 45 (2001), 5-32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier


def random_forest(seed: int) -> RandomForestClassifier:
    """The 500 trees of depth at most 25 that SITS-MoCo is compared with, grown on all cores."""
    from sklearn.ensemble import RandomForestClassifier  # here, as importing scikit-learn takes a second

    return RandomForestClassifier(n_estimators=500, max_depth=25, n_jobs=-1, random_state=seed)
