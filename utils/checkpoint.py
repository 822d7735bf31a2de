"""Checkpoints: written whole or not at all, read without running what is in them.

A checkpoint is a dict. ``model_state``, ``epoch``, ``val_loss_min`` and ``not_improved_count`` are those of the
published files; ``model`` (what rebuilds the network), ``classmap`` and ``normalisation`` make ours usable without
remembering flags; ``training`` (optimizer, generators, …) is what resuming exactly needs. ``digests`` are added when a
checkpoint is saved, and compared when it is loaded; published and older files have none, but all have the checksums of
a ZIP archive.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils.archive import check_archive
from utils.digests import check_extent, digests, leaves
from utils.errors import Parser, UsageError, exit_cleanly
from utils.files import write_bytes

LAST, PREVIOUS = "model_last.pth", "model_last.prev.pth"  # what a run resumes from, and the one before


class CheckpointError(UsageError):
    """A checkpoint that cannot be read, or does not fit."""


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write a checkpoint with a digest of every tensor, whole or not at all.

    What a run resumes from stays as model_last.prev.pth until the next save.

    Raises:
        WriteError: the disk is full, or the folder read-only.
    """
    buffer = io.BytesIO()  # torch's own writer says nothing of a disk that is full
    torch.save({**checkpoint, "digests": digests(checkpoint)}, buffer)
    previous = Path(path).with_name(PREVIOUS) if Path(path).name == LAST else None
    write_bytes(path, buffer.getbuffer(), previous=previous)


def load_checkpoint(path: str | Path, advice: str = "give the model_best.pth of a run folder") -> dict:
    """Read a checkpoint, ours or a published one, on the CPU; tensors, numbers and strings only.

    ``advice`` is what to do where there is no such file. The published classifier files also hold their loss module:
    ``nn.CrossEntropyLoss`` is the one class admitted, and ``set``, which is inside it and which torch 2.4 does not
    admit by itself.

    Raises:
        CheckpointError: no such file, not a checkpoint, one that holds other objects, or one that is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint ({_neighbours(path)}); {advice}")
    try:
        check_archive(path)
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    torch.serialization.add_safe_globals([nn.CrossEntropyLoss, set])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about pickles of other programs: these are refused below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can make an unpickler raise nearly anything
        found = re.search(r"GLOBAL (\S+)", str(error))  # what torch refused; the rest of its advice is not for users
        raise _unusable(
            path, f"it holds {found[1]}, which is never loaded" if found else "damaged, cut off or of another kind"
        ) from None
    if not isinstance(checkpoint, dict) or not is_state(checkpoint.get("model_state")):
        raise CheckpointError(f"{path}: no 'model_state' in it; expected a checkpoint of main_moco.py or main_tscls.py")
    _verify(path, checkpoint, checkpoint.pop("digests", None))
    model = checkpoint.get("model", {})
    if not isinstance(model, dict) or model and not isinstance(model.get("name"), str):
        raise CheckpointError(f"{path}: its 'model' is damaged; expected the arguments of build_model, or none")
    return checkpoint


def _unusable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: not a checkpoint of tensors and numbers: {reason}")


def _verify(path: Path, checkpoint: dict, expected: object) -> None:
    """CheckpointError for tensors that the file does not hold, or where a digest is not the expected one."""
    try:
        tensors = [value for _, value in leaves(checkpoint) if isinstance(value, Tensor)]
        for tensor in tensors:
            check_extent(tensor)
        _check_storages(path, tensors)
        found = None if expected is None else digests(checkpoint)
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    if found != expected:
        known = expected if isinstance(expected, dict) else {}
        names = [name or "a name or a number" for name in found if found[name] != known.get(name)]
        raise CheckpointError(
            f"{path}: damaged or changed: {', '.join(names[:3]) or 'a tensor'} {'…' if len(names) > 3 else ''}"
            " in it does not have its digest; copy or download it again"
        )


def _check_storages(path: Path, tensors: list[Tensor]) -> None:
    """ValueError for a storage that is not as large as its member of the archive: torch 2.4 would read beyond it."""
    with zipfile.ZipFile(path) as archive:
        left = Counter(member.file_size for member in archive.infolist() if "/data/" in member.filename)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    needed = Counter(size for size in storages.values() if size)
    if needed - left:
        raise ValueError("a tensor in it is of another size than its values")


def _neighbours(path: Path) -> str:
    """Which checkpoints lie where there is none of this name."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(file.name for file in folder.glob("*.pth"))
    return f"{folder} holds {', '.join(names[:5]) or 'no .pth file'}{' …' if len(names) > 5 else ''}"


def is_state(state: object) -> bool:
    """Whether this is a dict of tensors by name."""
    return isinstance(state, dict) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items())


class Taken(NamedTuple):
    """What ``load_pretrained`` took, and what the file says of its training; published ones say nothing.

    ``names`` of the tensors taken and those of the trunk ``missing`` in the file; whether the decoder is among them
    (``has_decoder``); its ``model`` (the arguments of build_model), ``length_method`` and ``normalisation``.
    """

    names: list[str]
    missing: list[str]
    has_decoder: bool
    model: dict
    length_method: str | None
    normalisation: dict | None


def is_pretraining_state(state: dict[str, Tensor]) -> bool:
    """Whether these tensors are of a pre-training, and not of a classifier."""
    return any(name.removeprefix("module.").startswith("encoder_q.") for name in state)


def encoder_state(model_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The query encoder's tensors of a pre-training state, or a classifier's own, under the names of a network."""
    state = {name.removeprefix("module."): tensor for name, tensor in model_state.items()}
    if is_pretraining_state(state):
        state = {name.removeprefix("encoder_q."): t for name, t in state.items() if name.startswith("encoder_q.")}
    return state


def taken_state(state: dict[str, Tensor], with_decoder: bool) -> dict[str, Tensor]:
    """The tensors that fine-tuning may start from: those of the trunk, and of the decoder too where asked for."""
    left = ("position_enc.pe",) if with_decoder else ("position_enc.pe", "decoder.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(left)}


def load_pretrained(
    network: nn.Module, path: str | Path, models: Collection[str] | None = None, classes: Sequence[str] | None = None
) -> Taken:
    """Start a classifier from a pre-training checkpoint (or a classifier's) of one of ``models`` (None: any).

    Its trunk is taken, and its decoder too where it is that of a classifier of these ``classes``, by their names in
    their order. Published checkpoints name neither their model nor their classes; of them whatever fits by name is
    taken, without the decoder.

    Raises:
        CheckpointError: another model, a tensor of another shape, or nothing in the file that the network knows.
    """
    checkpoint = load_checkpoint(path)
    model = checkpoint.get("model", {})
    if models is not None and model and model["name"] not in models:
        raise CheckpointError(f"{path}: is of {model['name']}; expected a checkpoint of {' or '.join(models)}")
    has_decoder = classes is not None and told_classes(checkpoint) == [*classes]
    found = taken_state(encoder_state(checkpoint["model_state"]), has_decoder)
    own = taken_state(network.state_dict(), has_decoder)
    names = [name for name in own if name in found]
    if not names:
        sample = ", ".join(list(found)[:3]) or "nothing"
        raise CheckpointError(
            f"{path}: none of its tensors ({sample} …) belongs to {type(network).__name__};"
            " give a checkpoint of the same model, or stnet and transformer for each other"
        )
    for name in names:
        if found[name].shape != own[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(found[name].shape)}, {type(network).__name__} expects"
                f" {tuple(own[name].shape)}; it was trained with other settings"
            )
    network.load_state_dict({name: found[name] for name in names}, strict=False)
    missing = [name for name in own if name not in found]
    return Taken(names, missing, has_decoder, model, checkpoint.get("length_method"), checkpoint.get("normalisation"))


def told_classes(checkpoint: dict) -> list[str] | None:
    """Names of the classes that the decoder of a checkpoint tells apart; None where it does not say."""
    classmap = checkpoint.get("classmap")
    return classmap.get("names") if isinstance(classmap, dict) else None


def load_weights(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load a whole state, the day table aside; CheckpointError as of `check_weights`."""
    module.load_state_dict(check_weights(module, state, path))


def check_weights(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The state as the module names it; CheckpointError names what is missing, unknown or of another shape."""
    state = {name.removeprefix("module."): t for name, t in state.items() if not name.endswith("position_enc.pe")}
    own = module.state_dict()
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    wrong += [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in own]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{path}: does not fit {type(module).__name__}: {'; '.join(wrong[:3])}{more};"
            " use the settings it was trained with"
        )
    return state


def slim(source: str | Path, target: str | Path) -> None:
    """Copy a pre-training checkpoint without queue, key encoder and training state: what fine-tuning needs."""
    if Path(source).resolve() == Path(target).resolve():
        raise CheckpointError(f"{source}: is both source and target; give another target")
    checkpoint = load_checkpoint(source)
    state = {n: t for n, t in checkpoint["model_state"].items() if n.startswith("encoder_q.")}
    if not state:
        raise CheckpointError(f"{source}: no encoder_q in it; expected a checkpoint of main_moco.py")
    kept = {name: value for name, value in checkpoint.items() if name != "training"}
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(target, {**kept, "model_state": state})


@exit_cleanly
def main() -> None:
    parser = Parser(description=slim.__doc__)
    parser.add_argument("source", help="model_best.pth of a pre-training run")
    parser.add_argument("target", help="where to write the small checkpoint")
    args = parser.parse_args()
    slim(args.source, args.target)
    print(f"{args.target}: {Path(args.target).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
