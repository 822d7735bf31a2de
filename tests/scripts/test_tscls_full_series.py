"""By default a network that takes padding of any length is tested on all observations of each series, in one pass."""

from __future__ import annotations

import pytest
import torch

from datasets.classmap import CDL20, write_classmap
from datasets.transforms import model_input
from models import build_model
from tests.support import reference
from tests.support.layout import write_long_store
from tests.support.runs import checkpoint, rows, train

COUNTS = {"train": 45, "valid": 11, "eval": 31}


@pytest.mark.parametrize("method", ["pad", "rc"])
@pytest.mark.parametrize("name", ["stnet", "transformer"])
def test_the_scores_are_of_all_observations_in_one_pass(tmp_path, no_pictures, name, method):
    """Series of 5 to 35 observations, though training takes 20 of each; nothing of the prediction is random."""
    for split, count in COUNTS.items():
        write_long_store(tmp_path / "2019" / split, count, seed=count)
    write_classmap(tmp_path / "classmapping20.csv", CDL20)
    flags = ["--useall", "--recipe", "few-label", "--use-doy", "-e", 6] + ["--rc"] * (method == "rc")
    folder = train(tmp_path, tmp_path / "results", *flags, model=name)
    network = build_model(name, use_doy=True)
    network.load_state_dict(checkpoint(folder)["model_state"])
    data = reference.Data(tmp_path / "2019" / "eval")
    assert data.width > 20
    series = data.batch(range(len(data)))
    with torch.no_grad():
        logits = network.eval()(model_input(series, data.width, "pad", torch.Generator()))  # S is the longest of all
    loss = torch.nn.functional.cross_entropy(logits, data.labels).item()
    scores = reference.scores_by_hand(data.labels.numpy(), logits.argmax(1).numpy())
    (row,) = rows(folder, "testlog.csv")
    assert {name: float(row[name]) for name in ("loss", *scores)} == pytest.approx({"loss": loss, **scores}, rel=1e-4)
