"""A digest of every tensor of a nested dict, and one of all the rest: names, types, plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

REST = ""  # the name of the digest of what is no tensor
MOST_VALUES, DEEPEST = 1_000_000, 50  # of a tree that is walked: a small pickle can describe an endless one


def digests(tree: object) -> dict[str, str]:
    """BLAKE2b of 16 bytes, in hexadecimal digits: of each tensor by its place, as "model_state.decoder.weight"; and of
    everything else under REST.

    ValueError for a tree that is too large or too deep, or a tensor of more values than its storage has.
    """
    found, rest = {}, _hash()
    for place, value in leaves(tree):
        if isinstance(value, Tensor):
            found[place] = tensor_digest(value)
            value = "a tensor"
        rest.update(f"{place!r}: {type(value).__name__} {value!r}\n".encode("utf-8", "surrogatepass"))
    return {**found, REST: rest.hexdigest()}


def tensor_digest(tensor: Tensor) -> str:
    """The digest of dtype, shape and values."""
    check_extent(tensor)
    digest = _hash()
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_extent(tensor: Tensor) -> None:
    """ValueError for a view that repeats values: a few bytes of a file can describe terabytes of those."""
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} has more values than are in the file")


def leaves(tree: object) -> Iterator[tuple[str, object]]:
    """(place, value) of everything in dicts, lists and tuples; a dict or list itself gives its kind and keys."""
    waiting: list[tuple[str, object, int]] = [("", tree, 0)]
    count = 0
    while waiting:
        place, value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError("it holds too many values, or too deep ones")
        if isinstance(value, dict):
            yield place, ("dict", *map(_key, value))
            inside = list(value.items())
        elif isinstance(value, list | tuple):
            yield place, ("list" if isinstance(value, list) else "tuple", len(value))
            inside = list(enumerate(value))
        else:
            yield place, value
            continue
        waiting += [(f"{place}.{key}".lstrip("."), item, depth + 1) for key, item in reversed(inside)]


def _key(key: object) -> str:
    if not isinstance(key, str | int | float | bool | None):
        raise ValueError(f"it has a key of type {type(key).__name__}")
    return repr(key)


def _hash():
    return hashlib.blake2b(digest_size=16)
