import hashlib
import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datasets import download
from datasets.download import DOWNLOADS, Download, blob_id, fetch, main
from datasets.errors import DataError
from tests.conftest import SHARED, needs_shared

CONTENT = bytes(range(256)) * 4000  # about 1 MB


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; can ignore ranges, and break off after `server.break_after` bytes of an answer."""

    def do_GET(self):
        self.server.ranges.append(self.headers["Range"])
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if self.headers["Range"] and self.server.serves_ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.break_after])

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges, server.serves_ranges, server.break_after = {"/file.npy": CONTENT}, [], True, None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "2019" / "file.npy"


def part_of(target):
    return target.with_name(target.name + ".part")


def test_the_blob_id_is_that_of_git(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello world\n")
    assert blob_id(tmp_path / "hello") == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"  # git hash-object hello


@needs_shared
def test_class_map_of_the_table_is_the_published_one():
    path = SHARED / "us-toy" / "classmapping20.csv"
    assert blob_id(path) == DOWNLOADS["us-toy"].blob_ids["classmapping20.csv"]


def test_a_file_is_fetched_once(server, target):
    assert fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert target.read_bytes() == CONTENT and not part_of(target).exists()
    assert not fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert server.ranges == [None]  # the second call asked for nothing


def test_a_broken_transfer_is_resumed(server, target):
    server.break_after = 300_000
    with pytest.raises(DataError, match="300,000 of 1,024,000 bytes.*run the same command again"):
        fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert not target.exists() and part_of(target).stat().st_size == 300_000
    server.break_after = None
    assert fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_without_ranges_a_transfer_restarts(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * 1000)
    server.serves_ranges = False
    assert fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_complete_part_needs_no_server(target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:1/unreachable", target, git_id(CONTENT))
    assert target.read_bytes() == CONTENT


def test_an_overlong_part_restarts(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    assert fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [b"", b"y" * 1000])
def test_wrong_id_leaves_nothing(server, target, leftover):
    target.parent.mkdir()
    if leftover:
        part_of(target).write_bytes(leftover)
    with pytest.raises(DataError, match="git blob id .* expected"):
        fetch(f"{server.url}/file.npy", target, git_id(b"other"))
    assert list(target.parent.iterdir()) == []


def test_other_content_is_not_overwritten(server, target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(DataError, match="exists but is not the published file"):
        fetch(f"{server.url}/file.npy", target, git_id(CONTENT))
    assert target.read_bytes() == b"mine" and server.ranges == []


@pytest.fixture
def small_set(server, monkeypatch):
    """A set of two files, served and listed under the name us-toy."""
    files = {"map.csv": b"id,classname\n", "2019/npy/Train.npy": CONTENT}
    server.files |= {f"/data/US-toy/{path}": content for path, content in files.items()}
    ids = {path: git_id(content) for path, content in files.items()}
    monkeypatch.setitem(download.DOWNLOADS, "us-toy", Download("data/US-toy", "unused", ids, "--datapath {out}"))
    return files


def test_command_fetches_the_set(server, small_set, tmp_path, capsys):
    out = tmp_path / "toy"
    arguments = ["us-toy", "--out", str(out), "--base-url", f"{server.url}/"]
    main(arguments)
    assert {path: (out / path).read_bytes() for path in small_set} == small_set
    assert f"use it with --datapath {out.as_posix()}" in capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr().out.count("already fetched, verified") == 2


def test_a_failed_download_leaves_no_folder_that_counts_as_data_and_is_resumed(server, small_set, tmp_path, capsys):
    arguments = ["us-toy", "--out", str(tmp_path / "toy"), "--base-url", server.url]
    server.break_after = 300_000
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.part"]
    assert (tmp_path / "toy.part" / "2019" / "npy" / "Train.npy.part").stat().st_size == 300_000
    server.break_after = None
    main(arguments)
    assert server.ranges == [None, None, "bytes=300000-"] and [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert {path: (tmp_path / "toy" / path).read_bytes() for path in small_set} == small_set


def test_of_processes_that_download_together_one_does_and_the_others_wait(server, small_set, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)

    def together():
        barrier.wait()
        main(["us-toy", "--out", str(tmp_path / "toy"), "--base-url", server.url])

    workers = [context.Process(target=together) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert len(server.ranges) == len(small_set) and [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert {path: (tmp_path / "toy" / path).read_bytes() for path in small_set} == small_set


def test_a_folder_that_exists_gets_what_it_lacks(server, small_set, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "map.csv").write_bytes(small_set["map.csv"])
    main(["us-toy", "--out", str(tmp_path / "toy"), "--base-url", server.url])
    assert (tmp_path / "toy" / "2019" / "npy" / "Train.npy").read_bytes() == CONTENT and len(server.ranges) == 1


def test_errors_of_the_command_are_one_line(server, small_set, tmp_path, capsys):
    del server.files["/data/US-toy/map.csv"]
    with pytest.raises(SystemExit, match="2"):
        main(["us-toy", "--out", str(tmp_path), "--base-url", server.url])
    message = capsys.readouterr().err
    assert message.startswith(f"error: cannot fetch {server.url}/data/US-toy/map.csv: HTTP Error 404")
    assert message.count("\n") == 1


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "no-scheme"])
def test_an_unreachable_server_is_one_line(base_url, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["checkpoint", "--out", str(tmp_path), "--base-url", base_url])
    message = capsys.readouterr().err
    assert message.startswith(f"error: cannot fetch {base_url}/checkpoints/") and message.count("\n") == 1


def test_a_file_cannot_be_the_folder(server, small_set, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["us-toy", "--out", str(tmp_path / "file"), "--base-url", server.url])
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'} is a file: choose another --out\n"
    assert server.ranges == []


def test_published_checkpoint_does_not_land_on_ours():
    assert DOWNLOADS["checkpoint"].out == "checkpoints/published/MoCoV2_TRSF_doy"
    assert all(len(i) == 40 for wanted in DOWNLOADS.values() for i in wanted.blob_ids.values())


def test_a_server_that_sends_without_end_is_cut_off(tmp_path, monkeypatch):
    """It would fill the disk before the file can be compared with its id."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5000)
    monkeypatch.setattr(download, "LARGEST", 4000)
    monkeypatch.setattr(download, "BLOCK", 1000)
    with pytest.raises(DataError, match="sends more than 4,000 bytes, so it is not the published file"):
        download.fetch(source.as_uri(), tmp_path / "target", "0" * 40)
    assert not (tmp_path / "target").exists() and (tmp_path / "target.part").stat().st_size == 4000
