"""The models by name: five networks (torch) and the estimators of scikit-learn."""

from __future__ import annotations

from models.errors import ModelError
from models.estimators import ESTIMATORS, SeriesEstimator, build_estimator
from models.init import INITS, initialise
from models.layers import Network
from models.lstm import LSTM
from models.ltae import LTAE
from models.stnet import STNet
from models.tempcnn import TempCNN
from models.transformer import TransformerModel, check_positions

__all__ = [
    "ESTIMATORS",
    "INITS",
    "NETWORKS",
    "ModelError",
    "Network",
    "SeriesEstimator",
    "build_estimator",
    "build_model",
    "canonical_name",
    "model_class",
]

_NETWORKS = {"stnet": STNet, "transformer": TransformerModel, "tempcnn": TempCNN, "lstm": LSTM, "ltae": LTAE}

NETWORKS = tuple(_NETWORKS)


def canonical_name(name: str) -> str:
    """The registered name of a model, whatever its letter case; ModelError lists the known names."""
    if name.lower() in NETWORKS + ESTIMATORS:
        return name.lower()
    raise ModelError(f"unknown model {name!r}: choose one of {', '.join(NETWORKS + ESTIMATORS)}")


def model_class(name: str) -> type[Network] | type[SeriesEstimator]:
    """The class of a model; its attributes say what the model reads, without building it."""
    name = canonical_name(name)
    return SeriesEstimator if name in ESTIMATORS else _NETWORKS[name]


def build_model(
    name: str,
    *,
    num_classes: int = 21,
    sequencelength: int = 70,
    use_doy: bool = False,
    init: str = "published",
    **kwargs,
) -> Network:
    """Build a network by name and initialise its weights by ``init``.

    ``use_doy`` and ``sequencelength`` are passed to the networks that use them; ``kwargs`` are the network's own
    options. ``build_model(**network.arguments)`` builds the same network again; the arguments include ``use_doy`` only
    where the network uses it.
    """
    name = canonical_name(name)
    if name in ESTIMATORS:
        raise ModelError(f"{name!r} is no network: choose one of {', '.join(NETWORKS)}")
    network_class = _NETWORKS[name]
    options = {"num_classes": num_classes, **kwargs}
    if network_class.uses_doy_flag:
        options["use_doy"] = use_doy
        if not use_doy:
            check_positions(sequencelength)
    if network_class.fixed_length:
        options["sequencelength"] = sequencelength
    network = network_class(**options)
    initialise(network, init)
    read = {"sequencelength": sequencelength, **options}
    network.arguments = {"name": name, **read, "init": init}
    return network
