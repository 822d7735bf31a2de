"""How series become the input of a classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.classifiers import series_of
from tscls.inputs import LabelledSeries, length_method
from utils.runtime.distributed import World


@pytest.mark.parametrize(
    ("interpolates", "flags", "method"),
    [
        (True, {}, "pad"),
        (True, {"rc": True}, "rc"),
        (True, {"rc": True, "interp": True}, "interp"),
        (False, {"interp": True}, "pad"),
        (False, {"interp": True, "rc": True}, "rc"),
        (False, {"pretrained": "rc"}, "rc"),
        (False, {"pretrained": "rc", "pad": True}, "pad"),
        (False, {"pretrained": "pad", "rc": True}, "rc"),
        (False, {"pretrained": "pad"}, "pad"),
        (False, {"pretrained": "rc", "interp": True}, "rc"),
        (True, {"pretrained": "rc", "interp": True}, "interp"),
        (True, {"pretrained": "interp"}, "interp"),
        (True, {"pretrained": "interp", "pad": True}, "pad"),
        (False, {"pretrained": "interp"}, "pad"),
    ],
)
def test_flags_come_before_the_checkpoint_and_padding_is_what_is_left(interpolates, flags, method):
    assert length_method(interpolates, **flags) == method


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_see_their_shards_of_every_batch(tmp_path, workers):
    series = series_of(tmp_path / "store", [3, 5, 4, 6, 7], labels=[4, 3, 2, 1, 0])
    batches = [np.array([4, 0, 1]), np.array([2, 3])]
    seen = []
    for rank in range(2):
        data = LabelledSeries(series, World(rank, 2), workers)
        assert len(data) == 5
        seen.append([(part.length.tolist(), labels.tolist()) for part, labels in data.stream(batches)])
    assert seen == [[([7, 3], [0, 4]), ([4], [2])], [([5], [3]), ([6], [1])]]
    assert labels_are_int64(series)


def labels_are_int64(series) -> bool:
    ((_, labels),) = LabelledSeries(series, World()).stream([np.arange(2)])
    return labels.dtype == torch.int64
