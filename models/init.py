"""How the weights of a fresh classifier start.

``published`` is the start that the SITS-MoCo system gives every network it trains, whatever the layer's size;
``torch`` leaves each layer as PyTorch made it.
"""

from __future__ import annotations

from torch import nn

from models.errors import ModelError

INITS = ("published", "torch")


def initialise(model: nn.Module, init: str) -> None:
    """Set the weights of ``model`` in place as ``init``, one of ``INITS``, says; ModelError for another name."""
    if init not in INITS:
        raise ModelError(f"unknown weight initialisation {init!r}: choose one of {', '.join(INITS)}")
    if init == "published":
        model.apply(published_init)


def published_init(module: nn.Module) -> None:
    """Draw the weights of one layer by its class.

    Layer normalisation keeps PyTorch's start, and so does the input projection of an attention layer, which is
    a bare parameter and no Linear; its output projection is a Linear and is drawn like the others.
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
