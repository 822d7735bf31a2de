"""Initial weights of a new classifier.

``published`` is the initialisation that the SITS-MoCo system uses for every network, whatever the size of a layer;
``torch`` keeps PyTorch's own.
"""

from __future__ import annotations

from torch import nn

from models.errors import ModelError

INITS = ("published", "torch")


def initialise(model: nn.Module, init: str) -> None:
    """Initialise the weights of ``model`` in place by ``init``, one of ``INITS``; ModelError for another name."""
    if init not in INITS:
        raise ModelError(f"unknown weight initialisation {init!r}: choose one of {', '.join(INITS)}")
    if init == "published":
        model.apply(published_init)


def published_init(module: nn.Module) -> None:
    """Draw the weights of one layer according to its class.

    Layer normalisation keeps PyTorch's initialisation, and so does the input projection of an attention layer, which is
    a plain parameter and not a Linear; its output projection is a Linear and is drawn like the others.
    """
    if isinstance(module, nn.Conv1d):
        nn.init.normal_(module.weight)
        _normal_bias(module)
    elif isinstance(module, nn.BatchNorm1d):
        nn.init.normal_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        _normal_bias(module)
    elif isinstance(module, nn.LSTM):
        for tensor in module.parameters():
            (nn.init.orthogonal_ if tensor.dim() >= 2 else nn.init.normal_)(tensor)


def _normal_bias(module: nn.Conv1d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.normal_(module.bias)
