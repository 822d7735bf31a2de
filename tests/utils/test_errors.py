"""Errors of the user end in one line and exit code 2, bugs in a traceback."""

from __future__ import annotations

import errno

import pytest

from utils.errors import UsageError, WriteError, exit_cleanly


def ended(error: BaseException, capsys) -> tuple[int, str]:
    @exit_cleanly
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("rank", "start"), [(None, "error: "), ("0", "error: "), ("3", "[rank 3] error: ")])
def test_the_line_has_the_rank_unless_it_is_0(rank, start, capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert ended(UsageError("too\nlong"), capsys) == (2, f"{start}too long\n")


def test_a_file_that_cannot_be_written_is_named(capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert ended(PermissionError(13, "Permission denied", "out/a.csv"), capsys) == (
        2, "error: out/a.csv: Permission denied\n",
    )  # fmt: skip


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_cannot_be_written_to_is_no_mistake_of_the_user(code, capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    reason = "cannot be written; make room"
    assert ended(WriteError(errno.EACCES, reason, "out/a.csv"), capsys) == (1, f"error: out/a.csv: {reason}\n")
    assert ended(OSError(code, reason, "out/a.csv"), capsys) == (1, f"error: out/a.csv: {reason}\n")


@pytest.mark.parametrize("bug", [OSError("of no file"), KeyError("name")])
def test_bugs_keep_their_traceback(bug):
    @exit_cleanly
    def main():
        raise bug

    with pytest.raises(type(bug)):
        main()
