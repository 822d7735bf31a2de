"""Reading damaged files in a process of its own, which may hang, take too much memory, or die."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import resource
import shutil
import signal
import tempfile
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tests.fuzzing.mutations import Content, mutate
from utils.errors import UsageError

SECONDS, PATIENCE = 5, 120  # of computing and of waiting that reading a file may take
MEMORY = 2 << 30  # bytes more than before
REFUSED, RIGHT, SILENT, FOREIGN, MEMORY_HIT, HANG, DIED = (
    "refused",
    "right",
    "silent",
    "foreign",
    "memory",
    "hang",
    "died",
)


class Verdict(NamedTuple):
    """What came of a mutation: its number, one of the words above, what was done, and what was said."""

    number: int
    word: str
    what: str
    said: str


class Report(NamedTuple):
    """All verdicts of a kind of files."""

    kind: str
    verdicts: list[Verdict]

    def counts(self) -> Counter:
        return Counter(verdict.word for verdict in self.verdicts)

    def of(self, *words: str) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.word in words]


def files_of(folder: Path) -> Content:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def digest(value: object) -> str:
    """A digest of values, whatever holds them."""
    found = hashlib.blake2b(digest_size=16)
    _feed(value, found)
    return found.hexdigest()


def _feed(value: object, found) -> None:
    if isinstance(value, pd.DataFrame | pd.Series):
        value = value.to_csv()
    if isinstance(value, dict):
        for key, item in value.items():
            found.update(f"{key!r}=".encode())
            _feed(item, found)
    elif isinstance(value, list | tuple) or isinstance(value, np.ndarray) and value.dtype.kind == "O":
        found.update(f"[{len(value)}".encode())
        for item in value:
            _feed(item, found)
    elif isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        array = np.asarray(value)
        found.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    else:
        found.update(repr(value).encode("utf-8", "surrogatepass"))


def run(kind, count: int, seed: int = 0) -> Report:
    """Mutate the files of a kind `count` times, and read them each time."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="fuzzing-") as base:
        contents = []
        for number in (0, 1):
            folder = Path(base) / "work"
            kind.build(folder, number)
            contents.append(files_of(folder))
            if number == 0:
                expected = digest(kind.read(folder))
            shutil.rmtree(folder)
        verdicts: list[Verdict] = []
        while len(verdicts) < count:
            verdicts += _in_child(kind, contents, expected, Path(base), seed, range(len(verdicts), count))
    return Report(kind.name, verdicts)


def _in_child(kind, contents: list[Content], expected: str, base: Path, seed: int, numbers: range) -> list[Verdict]:
    """Verdicts of these numbers, up to the first one that the process does not survive."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _child(kind, contents, expected, base, seed, numbers, writing)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        verdicts = [Verdict(*json.loads(line)) for line in lines if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    if len(verdicts) < len(numbers):
        number = numbers[len(verdicts)]
        what, _ = mutate(*contents, kind.damaged, _generator(seed, number))
        code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        word = HANG if code in (signal.SIGPROF, signal.SIGALRM) else DIED
        verdicts.append(Verdict(number, word, what, f"signal {code}"))
    return verdicts


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


def _child(kind, contents, expected: str, base: Path, seed: int, numbers: range, writing: int) -> None:
    faulthandler.disable()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    before = _peak()
    with os.fdopen(writing, "w", encoding="utf-8") as lines:
        for number in numbers:
            what, content = mutate(*contents, kind.damaged, _generator(seed, number))
            computed = _computed_elsewhere()
            word, said = _verdict(kind, content, expected, base / "work")
            if _computed_elsewhere() - computed > SECONDS:
                word = HANG
            if _peak() - before > MEMORY:
                word, before = MEMORY_HIT, _peak()
            lines.write(json.dumps([number, word, what, said]) + "\n")
            lines.flush()


def _peak() -> int:
    """Bytes that this process, or one that it started and that has ended, had at most."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _computed_elsewhere() -> float:
    """Seconds that the processes which this one started have computed, those that have ended and those that live."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            _, parent, *fields = file.read_text().rpartition(")")[2].split()
            if int(parent) == os.getpid():
                ticks += int(fields[9]) + int(fields[10])  # in user and kernel mode
    return usage.ru_utime + usage.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _verdict(kind, content: Content, expected: str, folder: Path) -> tuple[str, str]:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        found = digest(kind.read(folder))
    except UsageError as error:
        return (FOREIGN if "\n" in str(error) else REFUSED), str(error)
    except BaseException as error:  # whatever is not ours is what this is looking for
        return FOREIGN, f"{type(error).__module__}.{type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return (RIGHT if found == expected else SILENT), ""
