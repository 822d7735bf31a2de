"""Damage to files, as of disks, transfers and strangers; all is drawn by a generator, so it can be repeated."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from io import BytesIO

import numpy as np

Content = dict[str, bytes]  # files by their path in a folder
HEADER = 160  # bytes that `header` changes
NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"9",
    b"255",
    b"65536",
    b"2147483648",
    b"999999999999",
    b"9" * 30,
    b"1e308",
    b"nan",
    b"-0.5",
)
DTYPES = (
    b"'<i2'",
    b"'>i2'",
    b"'<i8'",
    b"'<f8'",
    b"'<u2'",
    b"'|O'",
    b"'|S4'",
    b"'<M8[D]'",
    b"[('a', '<i2')]",
    b"'|V22'",
)


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def drop(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes from the middle."""
    start = int(rng.integers(0, len(data)))
    return data[:start] + data[start + int(rng.integers(1, 65)) :]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 65))) + data[place:]


def zero(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch, as of a block that was never written."""
    start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 513))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch twice."""
    start = int(rng.integers(0, len(data)))
    end = start + int(rng.integers(1, 257))
    return data[:end] + data[start:end] + data[end:]


def header(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes at the beginning have any value."""
    changed = bytearray(data)
    for place in rng.integers(0, min(len(data), HEADER), rng.integers(1, 5)):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def number(data: bytes, rng: np.random.Generator) -> bytes:
    """A number in the text is another one: absurd shapes, sizes, labels and coordinates."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return flip(data, rng)
    match = found[int(rng.integers(len(found)))]
    return data[: match.start()] + NUMBERS[int(rng.integers(len(NUMBERS)))] + data[match.end() :]


def npy_header(data: bytes, rng: np.random.Generator) -> bytes:
    """A .npy header of another type, byte order, memory order or shape, of the same length."""
    if not data.startswith(b"\x93NUMPY"):
        return number(data, rng)
    length = int.from_bytes(data[8:10], "little")
    text, rest = data[10 : 10 + length], data[10 + length :]
    kind = int(rng.integers(3))
    if kind == 0:
        text = re.sub(rb"'descr': [^,]*,", b"'descr': " + DTYPES[int(rng.integers(len(DTYPES)))] + b",", text, count=1)
    elif kind == 1:
        text = text.replace(b"False", b"True") if b"False" in text else text.replace(b"True", b"False")
    else:
        shape = tuple(int(n) for n in rng.choice([0, 1, 2, 3, 10, 100, 2**31, 2**40, 2**62], rng.integers(0, 5)))
        text = re.sub(rb"'shape': \([^)]*\)", b"'shape': " + str(shape).encode(), text, count=1)
    text = text.rstrip()[: length - 1].ljust(length - 1) + b"\n"
    return data[:10] + text + rest


BYTES: tuple[Callable, ...] = (flip, cut, drop, insert, zero, repeat, header, number, npy_header)


def swap(content: Content, other: Content, rng: np.random.Generator) -> Content:
    """A file has the content of another one of the same folder, or of the one of its name in another folder."""
    names = sorted(content)
    name = names[int(rng.integers(len(names)))]
    if len(names) > 1 and rng.integers(2):
        return {**content, name: content[names[int(rng.integers(len(names)))]]}
    return {**content, name: other.get(name, b"")}


def rezip(data: bytes, rng: np.random.Generator) -> bytes:
    """A ZIP archive whose members are damaged, mixed up, left out, doubled or compressed; its checksums are right."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    one, other = (int(n) for n in rng.integers(0, len(parts), 2))
    trick, compression = int(rng.integers(6)), zipfile.ZIP_STORED
    if trick == 0:
        name, member = parts[one]
        parts[one] = (name, BYTES[int(rng.integers(len(BYTES)))](member, rng) if member else b"x")
    elif trick == 1:
        parts[one], parts[other] = (parts[one][0], parts[other][1]), (parts[other][0], parts[one][1])
    elif trick == 2:
        del parts[one]
    elif trick == 3:
        parts.append((parts[one][0], parts[other][1]))
    elif trick == 4:
        parts[one] = (parts[one][0], bytes(20 << 20))
        compression = zipfile.ZIP_DEFLATED
    else:
        parts.append((("../" if rng.integers(2) else "/") + parts[one][0], parts[one][1]))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, member in parts:
            archive.writestr(name, member)
    return buffer.getvalue()


def mutate(content: Content, other: Content, end: str, rng: np.random.Generator) -> tuple[str, Content]:
    """What was done, and the files, one of those damaged whose names end so."""
    names = sorted(name for name in content if content[name] and name.endswith(end))
    name = names[int(rng.integers(len(names)))]
    data = content[name]
    tricks = [trick.__name__ for trick in BYTES]
    if len(names) > 1:
        tricks.append("swap")
    if data.startswith(b"PK\x03\x04"):
        tricks += ["rezip"] * 4
    trick = tricks[int(rng.integers(len(tricks)))]
    if trick == "swap":
        changed = swap(content, other, rng)
    else:
        changed = {**content, name: globals()[trick](data, rng)}
    return f"{trick} {name}", changed
