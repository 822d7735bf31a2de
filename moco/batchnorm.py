"""Batch normalisation over sub-batches, which gives one device the effect of several (He et al. 2020, section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SplitBatchNorm(nn.BatchNorm1d):
    """Normalises each of ``splits`` equal sub-batches by its own statistics; running statistics are their mean.

    A batch that cannot be divided into equal sub-batches of several values is normalised as one.
    """

    def __init__(self, num_features: int, splits: int, **kwargs):
        super().__init__(num_features, **kwargs)
        self.splits = splits

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C) or (N, C, S) -> the same shape."""
        if not self.training or len(x) % self.splits or len(x) == self.splits:
            return super().forward(x)
        runs = x.unflatten(0, (self.splits, -1)).transpose(0, 1).flatten(1, 2)  # (N / splits, splits * C, ...)
        mean, var = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        weight, bias = self.weight.repeat(self.splits), self.bias.repeat(self.splits)
        normed = F.batch_norm(runs, mean, var, weight, bias, True, self.momentum, self.eps)
        self.running_mean.copy_(mean.view(self.splits, -1).mean(0))
        self.running_var.copy_(var.view(self.splits, -1).mean(0))
        self.num_batches_tracked.add_(1)
        return normed.unflatten(1, (self.splits, -1)).transpose(0, 1).flatten(0, 1)


def split_batchnorm(module: nn.Module, splits: int) -> None:
    """Replace every BatchNorm1d inside ``module`` by a SplitBatchNorm, in place; one split changes nothing."""
    if splits == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d):
            split = SplitBatchNorm(child.num_features, splits, eps=child.eps, momentum=child.momentum)
            split.load_state_dict(child.state_dict())
            setattr(module, name, split)
        else:
            split_batchnorm(child, splits)
