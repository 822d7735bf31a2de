"""Class shares of the area that is mapped: from statistics, or estimated from a sample of its pixels without labels."""

from __future__ import annotations

import json

import numpy as np

from mapping.identity import PRIOR, difference
from mapping.parts import Parts
from mapping.windows import Plan, class_probabilities
from tscls.classifier import LEAST, Classifier
from tscls.evaluation import told_prior
from tscls.prior import ESTIMATE, NONE, SAMPLE, readable_shares, share_table, shares_there, spread

WINDOWS = 50  # that a sample of pixels is taken from, at most
DIGITS = 6  # of a share: what machines differ in is below


def shares_of_map(prior: str, plan: Plan, classifier: Classifier, parts: Parts, rest: dict) -> dict:
    """The `--prior` of a map and the shares of the classes by name; empty without one.

    Parts of the same map have them already; `rest` is the identity of the map without them.
    """
    if prior == NONE:
        return {}
    told = told_prior(prior)
    known, rest = parts.identity() or {}, json.loads(json.dumps(rest))
    if known.get(PRIOR, {}).get("prior") == told and difference(known, {**rest, PRIOR: known[PRIOR]}) is None:
        return known[PRIOR]
    there = shares_there(prior, classifier.shares, classifier.classmap, lambda: sample(plan, classifier))
    if prior == ESTIMATE:
        shares = share_table(classifier.names, classifier.shares, there)
        print(f"class shares, estimated from pixels of the map\n{readable_shares(shares)}")
    return {"prior": told, "shares": [round(share, DIGITS) for share in there.tolist()]}


def sample(plan: Plan, classifier: Classifier) -> np.ndarray:
    """Log-probabilities (N, C) of up to SAMPLE pixels, evenly spaced in windows that are evenly spaced in the map."""
    numbers = spread(len(plan.windows), WINDOWS)
    found = [np.zeros((0, classifier.num_classes))]
    for number in numbers:
        pixels, _ = plan.read(number)
        enough = np.flatnonzero(pixels.lengths >= plan.options.min_observations)
        chosen = np.zeros(len(pixels.lengths), bool)
        chosen[enough[spread(len(enough), SAMPLE // len(numbers))]] = True
        if chosen.any():
            found.append(class_probabilities(classifier, pixels, chosen, len(plan.images.dates)))
    return np.log(np.maximum(np.concatenate(found), LEAST))
