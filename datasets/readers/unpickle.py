"""Reading pickled object arrays of series without running any code that the file names.

A pickle is a program. This reader knows the few names from which arrays of numbers are built, and replaces each by a
small class of its own that checks its arguments; numpy's unpickling code is never called. Any other name is a
DataError. The unpickler is that of Python in Python: the one in C allocates what a damaged number asks for.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.npyfile import read_header

NUMBERS = {kind + size for kind, sizes in (("i", "1248"), ("u", "1248"), ("f", "248")) for size in sizes}
OBJECTS = {"O", "O4", "O8"}


def load_object_array(path: str | Path) -> np.ndarray:
    """The object array in a .npy file; its items are arrays of numbers or single numbers.

    DataError for a name that arrays of numbers do not need, a damaged or truncated file, another kind of array.
    """
    try:
        with open(path, "rb") as file:
            shape = _check_header(file, path)
            holder = _ArrayUnpickler(file, path).load()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # damaged bytes can make pickle raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged or cut off ({reason}); copy or download it again") from None
    if not isinstance(holder, _Array) or holder.value is None or holder.value.dtype.kind != "O":
        raise DataError(f"{path}: does not hold an object array; expected one of series arrays")
    if holder.value.shape != shape:
        raise DataError(f"{path}: damaged: its header says shape {shape}, its content has {holder.value.shape}")
    return holder.value


def _check_header(file, path: str | Path) -> tuple[int, ...]:
    """The shape that it says; leave `file` at the start of the pickle."""
    header = read_header(file)
    if header.dtype.kind != "O":
        raise DataError(
            f"{path}: an array of {header.dtype}, shape {header.shape}; expected an object array of series arrays"
        )
    return header.shape


class _ArrayUnpickler(pickle._Unpickler):
    def __init__(self, file, path: str | Path):
        super().__init__(file, encoding="latin1")  # bytes of Python 2 pickles arrive as text
        self.path = path

    def find_class(self, module: str, name: str):
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise DataError(
                f"{self.path}: refused, it asks for {module}.{name}, which arrays of numbers do not need;"
                " nothing of it was run"
            ) from None


class _Dtype:
    """Stands in for numpy.dtype: a number type or `object`, and its byte order."""

    def __init__(self, code: str, *_):
        if code not in NUMBERS | OBJECTS:
            raise ValueError(f"elements of type {code!r} instead of numbers")
        self.is_object = code in OBJECTS
        self.dtype = np.dtype(object) if self.is_object else np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray; `value` is None until its state arrives."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        if dtype.is_object:
            self.value = _object_array(shape, content)
        else:
            self.value = _number_array(_as_bytes(content), dtype, shape, "F" if is_fortran else "C")


def _object_array(shape: tuple[int, ...], items: list) -> np.ndarray:
    if len(items) != math.prod(shape):
        raise ValueError(f"{len(items)} items for an array of shape {shape}")
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item.value if isinstance(item, _Array) else item
    return array.reshape(shape)


def _number_array(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if len(content) != math.prod(shape) * dtype.dtype.itemsize:  # before numpy sees an absurd shape
        raise ValueError(f"{len(content)} bytes for an array of {dtype.dtype}, shape {shape}")
    return np.ndarray(shape, dtype.dtype, buffer=content, order=order)


def _as_bytes(content: bytes | str) -> bytes:
    if isinstance(content, str):  # from Python 2
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise ValueError(f"array content of type {type(content).__name__}")
    return bytes(content)


def _reconstruct(kind: type, *_) -> _Array:
    return kind()


def _scalar(dtype: _Dtype, content: bytes | str):
    return _number_array(_as_bytes(content), dtype, (1,), "C")[0]


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.value = _number_array(_as_bytes(content), dtype, shape, order)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """How protocols before 3 carry bytes."""
    if encoding != "latin1":
        raise ValueError(f"text in encoding {encoding!r} instead of array bytes")
    return text.encode("latin1")


_STAND_INS = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encode}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
