"""Fetch what the authors published, the toy data and their pre-trained checkpoint, or images of any place.

    python -m datasets.download us-toy          # real US series of 2019, into data/US-toy
    python -m datasets.download checkpoint      # their Transformer, into checkpoints/published/MoCoV2_TRSF_doy
    python -m datasets.download stac --help             # images and labels from a STAC catalogue
    python -m datasets.download earth-engine --help     # the same as export tasks of Earth Engine

The folder appears when it is complete. Until then the files are in a folder of the same name with `.part` at the end,
from which the same command resumes a broken transfer. Every file is checked by its git blob id, so it is byte for byte
what github.com/YXu556/SITS-MoCo holds at commit 1fab709.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tqdm import tqdm

from datasets.errors import DataError
from utils.errors import Parser, exit_cleanly
from utils.files import naming, one_at_a_time, sync

BASE_URL = "https://raw.githubusercontent.com/YXu556/SITS-MoCo/1fab709"
TIMEOUT = 30  # seconds without a byte from the server
BLOCK = 1 << 18  # bytes read at a time
LARGEST = 1 << 30  # bytes of a file; the published ones have a few million


class Download(NamedTuple):
    """A set of files: their folder in the repository, the folder they are written to, and their git blob ids."""

    source: str
    out: str
    blob_ids: Mapping[str, str]
    option: str  # of the training scripts, to use it


DOWNLOADS = {
    "us-toy": Download(
        source="data/US-toy",
        out="data/US-toy",
        blob_ids={
            "classmapping20.csv": "28a2dc02757fdceab0bacf8d4326e4c7488ad1ed",
            "2019/train.csv": "46c519bc7bb8af2b47a98d4e8aa9eeb06e6cc67f",
            "2019/valid.csv": "01641b4968b3e6776dec389dea6503660cdc676d",
            "2019/eval.csv": "21c94801f01e0be228d5b7e4cec029498c56d8ea",
            "2019/npy/Train_R2700_Seed111_Class20.npy": "c81f684e1ecfd97021aaedecee26b76f9783dce6",
            "2019/npy/Valid_R300_Seed111_Class20.npy": "2bbcdc94e6b0376349dfde01c0a39d0a1975a1c0",
            "2019/npy/Eval_R300_Seed111_Class20.npy": "5b7ec095f346127f2be0e9bcea3a617c791d9e8c",
            "2019/npy/Unsupervised_mini_All.npy": "1dc9befce63df8d8b327b3b2058578dc72857998",
        },
        option="--datapath {out}",
    ),
    "checkpoint": Download(
        source="checkpoints/pretrained/MoCoV2_TRSF_doy",
        out="checkpoints/published/MoCoV2_TRSF_doy",  # checkpoints/pretrained holds the one trained by this project
        blob_ids={"model_best.pth": "a2d13109e8dd0dd30e64dd3692ec285101100724"},
        option="--pretrained {out}/model_best.pth",
    ),
}

COMMANDS = {"stac": "datasets.stac", "earth-engine": "datasets.earth_engine"}  # modules with HELP, add_arguments, run


def blob_id(path: Path) -> str:
    """The id that git gives a file: the SHA-1 of `blob <size>`, a zero byte and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, target: Path, expected_id: str) -> bool:
    """Fetch one file unless it exists already; returns whether it was fetched.

    `target` appears once its blob id is `expected_id`. A broken transfer leaves `target` + `.part`, from which the next
    call resumes; a file with a wrong id is removed.

    Raises:
        DataError: the server cannot be reached or closes the connection, the content is not the expected one, or
            `target` exists with other content (which is never overwritten).
    """
    if target.exists():
        if blob_id(target) == expected_id:
            return False
        raise DataError(f"{target} exists but is not the published file: move it away, or choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if not (part.exists() and blob_id(part) == expected_id):  # else an earlier run ended just before the rename
        _transfer(url, part)
    found_id = blob_id(part)
    if found_id != expected_id:
        part.unlink()
        raise DataError(
            f"{url} has git blob id {found_id}, expected {expected_id}: removed; run again, or check --base-url"
        )
    sync(part)
    part.replace(target)
    sync(target.parent)
    return True


def _transfer(url: str, part: Path) -> None:
    """Append the rest of `url` to `part`; start from zero if the server does not serve ranges."""
    received = part.stat().st_size if part.exists() else 0
    with _network(url):
        response = _open(url, received)
        start = received if response.status == 206 else 0  # 206 Partial Content
        length = response.headers["Content-Length"]
        size = start + int(length) if length else None
    progress = tqdm(desc=part.stem, initial=start, total=size, unit="B", unit_scale=True, unit_divisor=1024)
    with response, naming(part, part, size or 0), part.open("ab" if start else "wb") as file, progress:
        for block in _blocks(response, url):
            if progress.n + len(block) > LARGEST:
                raise DataError(f"{url} sends more than {LARGEST:,} bytes, so it is not the published file")
            file.write(block)
            progress.update(len(block))
    if size is not None and progress.n < size:
        with _network(url):
            raise ConnectionError(f"the connection closed after {progress.n:,} of {size:,} bytes")


def _open(url: str, start: int) -> HTTPResponse:
    """Request `url` from byte `start` on, or all of it if the file ends before that byte."""
    if start:
        try:
            return urlopen(Request(url, headers={"Range": f"bytes={start}-"}), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code != 416:  # 416 Range Not Satisfiable: `.part` is as long as the file, with other content
                raise
    return urlopen(url, timeout=TIMEOUT)


def _blocks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        with _network(url):
            block = response.read(BLOCK)
        if not block:
            return
        yield block


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Turn network errors into a DataError. Errors of the disk must not occur inside."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a URL without a scheme
        raise DataError(
            f"cannot fetch {url}: {error}; check the connection or --base-url and run the same command again, "
            "which resumes where it stopped"
        ) from error


def download(name: str, out: Path | None = None, base_url: str = BASE_URL) -> Path:
    """Fetch the files of DOWNLOADS[name] into the folder `out` (default: the set's own) and return that folder.

    A folder that exists already gets the files that it lacks; a new one appears when all files are there.
    """
    wanted = DOWNLOADS[name]
    out = Path(out or wanted.out)
    if out.is_file():
        raise DataError(f"{out} is a file: choose another --out")
    with one_at_a_time(out):  # another process may have fetched it meanwhile
        folder = out if out.is_dir() else out.with_name(f"{out.name}.part")
        for path, expected_id in wanted.blob_ids.items():
            url = f"{base_url.rstrip('/')}/{quote(f'{wanted.source}/{path}')}"
            fetched = fetch(url, folder / path, expected_id)
            print(f"{out / path}: {'fetched and verified' if fetched else 'already fetched, verified'}")
        if folder != out:
            folder.rename(out)
    print(f"use it with {wanted.option.format(out=out.as_posix())}")
    return out


@exit_cleanly
def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        sys.exit(_run(arguments[0], arguments[1:]))
    parser = Parser(
        prog="python -m datasets.download",
        description="Fetch the authors' published toy data or pre-trained checkpoint, resumable and verified; "
        "or images and labels of any place.",
        epilog="stac and earth-engine have options of their own: see python -m datasets.download stac --help",
    )
    parser.add_argument("name", choices=[*DOWNLOADS, *COMMANDS], help="what to fetch")
    defaults = " or ".join(wanted.out for wanted in DOWNLOADS.values())
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"folder to write to (default: {defaults})")
    parser.add_argument("--base-url", default=BASE_URL, help="root of the repository's files (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.name in COMMANDS:
        parser.error(f"{options.name} comes first, before its options")
    download(options.name, options.out, options.base_url)


def _run(name: str, arguments: list[str]) -> int:
    """Run one of COMMANDS; returns its exit code."""
    command = importlib.import_module(COMMANDS[name])
    parser = Parser(
        prog=f"python -m datasets.download {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
