"""ZIP archives of other people's bytes: checked before anything of them is read into memory.

PyTorch and skops write ZIP files. PyTorch reads them without comparing the checksums of the members.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

DIGESTS = "digests.json"  # a member: the BLAKE2b of 16 bytes of every other one


def add_digests(path: str | Path) -> None:
    """Add the digests of the members of an archive to it."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(DIGESTS, json.dumps(_digests(archive)))


def check_archive(path: str | Path) -> None:
    """ValueError unless the file is a ZIP archive of plain members that have their CRC-32.

    Members are neither compressed nor encrypted, as PyTorch and skops write them, and together are no larger than the
    file: a small file cannot become a large one in memory. No name occurs twice. If there are digests they are right.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, Path(path).stat().st_size)
            broken = archive.testzip()
            if (
                broken is None
                and DIGESTS in archive.namelist()
                and json.loads(archive.read(DIGESTS)) != _digests(archive)
            ):
                raise _Refused("its members do not have their digests, so it is damaged or changed")
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    except Exception as error:  # damaged bytes can make zipfile raise nearly anything
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"damaged, cut off or of another kind: {reason}") from None
    if broken is not None:
        raise ValueError(f"{broken} in it does not have its checksum, so it is damaged")


def _digests(archive: zipfile.ZipFile) -> dict[str, str]:
    names = sorted(set(archive.namelist()) - {DIGESTS})
    return {name: hashlib.blake2b(archive.read(name), digest_size=16).hexdigest() for name in names}


class _Refused(Exception):
    """What is wrong with the members of an archive."""


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise _Refused("it has a member twice")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise _Refused(f"{member.filename} in it is compressed; expected plain members")
        if member.flag_bits & 1:
            raise _Refused(f"{member.filename} in it is encrypted")
    if sum(member.file_size for member in members) > size:
        raise _Refused("its members are larger than the file")
