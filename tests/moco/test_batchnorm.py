"""Batch normalisation over sub-batches, against as many separate normalisations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from moco.batchnorm import SplitBatchNorm, split_batchnorm
from models.layers import PointwiseMLP

CHANNELS = 3


def make_norm(splits: int, **options) -> SplitBatchNorm:
    """One whose weights, biases and running statistics are not the initial ones."""
    norm = SplitBatchNorm(CHANNELS, splits, **options)
    generator = torch.Generator().manual_seed(0)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
    return norm


def plain(norm: SplitBatchNorm) -> nn.BatchNorm1d:
    other = nn.BatchNorm1d(CHANNELS, eps=norm.eps, momentum=norm.momentum)
    other.load_state_dict(norm.state_dict())
    return other


@pytest.mark.parametrize("shape", [(12, CHANNELS), (12, CHANNELS, 5)])
@pytest.mark.parametrize("splits", [1, 2, 3, 6])
def test_splits_are_as_many_separate_normalisations(shape, splits):
    norm, x = make_norm(splits, momentum=0.3), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    separate = [plain(norm) for _ in range(splits)]
    expected = torch.cat([one(part) for one, part in zip(separate, x.chunk(splits), strict=True)])
    torch.testing.assert_close(norm(x), expected)
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(one, name) for one in separate]).mean(0)
        torch.testing.assert_close(getattr(norm, name), mean)
    assert norm.num_batches_tracked == 1


def test_gradients_are_those_of_separate_normalisations():
    norm, x = make_norm(3), torch.randn(12, CHANNELS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    shared, other, scale = plain(norm), x.detach().clone().requires_grad_(), torch.arange(36.0).view(12, CHANNELS)
    (norm(x) * scale).sum().backward()
    (torch.cat([copy.deepcopy(shared)(part) for part in other.chunk(3)]) * scale).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    whole = plain(norm)
    (torch.cat([whole(part) for part in other.detach().chunk(3)]) * scale).sum().backward()
    torch.testing.assert_close(norm.weight.grad, whole.weight.grad)
    torch.testing.assert_close(norm.bias.grad, whole.bias.grad)


@pytest.mark.parametrize("count", [5, 7, 2, 4])  # not to be cut in 4, and 4 runs of one
def test_a_batch_that_cannot_be_cut_is_normalised_whole(count):
    norm, x = make_norm(4), torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(1))
    whole = plain(norm)
    torch.testing.assert_close(norm(x), whole(x))
    torch.testing.assert_close(norm.running_var, whole.running_var)


def test_evaluation_uses_and_keeps_the_running_statistics():
    norm, x = make_norm(2).eval(), torch.randn(8, CHANNELS)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    expected = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())


def test_the_pointwise_mlp_splits_between_series():
    """Its rows are all observations of one series after another, so that no series falls into two sub-batches."""
    torch.manual_seed(0)
    whole, x = PointwiseMLP(), torch.randn(6, 11, 10)
    split = copy.deepcopy(whole)
    split_batchnorm(split, 3)
    expected = torch.cat([copy.deepcopy(whole)(part) for part in x.chunk(3)])
    torch.testing.assert_close(split(x), expected, atol=1e-5, rtol=1e-4)


def test_every_batchnorm_of_a_module_is_replaced_with_its_state():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, CHANNELS), nn.Sequential(make_norm(1), nn.ReLU()), nn.BatchNorm1d(CHANNELS))
    module[1][0] = plain(module[1][0])
    module[2].momentum, module[2].eps = 0.2, 1e-3
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    split_batchnorm(module, 2)
    norms = [module[1][0], module[2]]
    assert all(isinstance(norm, SplitBatchNorm) and norm.splits == 2 for norm in norms)
    assert (norms[1].momentum, norms[1].eps) == (0.2, 1e-3)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_one_split_replaces_nothing():
    module = nn.Sequential(nn.Linear(4, CHANNELS), nn.BatchNorm1d(CHANNELS))
    norm = module[1]
    split_batchnorm(module, 1)
    assert module[1] is norm
