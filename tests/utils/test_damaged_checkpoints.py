"""Checkpoints that are damaged, changed or made to harm: refused in one line, before anything large is read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from utils.archive import check_archive
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from utils.digests import REST, digests, leaves, tensor_digest

STATE = {"a": torch.arange(4.0), "b": torch.arange(6, dtype=torch.int64).reshape(2, 3)}


def content() -> dict:
    training = {
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]}
    }
    return {"model_state": {n: t.clone() for n, t in STATE.items()}, "epoch": 3, "model": {"name": "stnet"}, **training}


@pytest.fixture
def saved(tmp_path) -> Path:
    save_checkpoint(tmp_path / "model.pth", content())
    return tmp_path / "model.pth"


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive with right checksums of whatever it holds."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_digests_are_saved_and_not_handed_on(saved):
    raw = torch.load(saved, weights_only=True)
    assert raw["digests"] == digests(content())
    assert set(raw["digests"]) == {REST, "model_state.a", "model_state.b", "optimizer.state.0.step"}
    assert load_checkpoint(saved).keys() == content().keys()


def test_a_file_without_digests_loads(tmp_path):
    torch.save(content(), tmp_path / "model.pth")
    assert torch.equal(load_checkpoint(tmp_path / "model.pth")["model_state"]["b"], STATE["b"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda c: c["model_state"]["a"].add_(1), "model_state.a"),
        (lambda c: c["model_state"].update(a=c["model_state"]["a"].double()), "model_state.a"),
        (lambda c: c["model_state"].update(b=c["model_state"]["b"].reshape(3, 2)), "model_state.b"),
        (lambda c: c["optimizer"]["state"][0]["step"].add_(1), "optimizer.state.0.step"),
        (lambda c: c.update(epoch=4), "a name or a number"),
        (lambda c: c.update(epoch=3.0), "a name or a number"),
        (lambda c: c["optimizer"]["groups"][0].update(betas=[0.9, 0.99]), "a name or a number"),
        (lambda c: c["optimizer"]["groups"][0].update(lr=1e-4), "a name or a number"),
        (lambda c: c["model"].update(name="lstm"), "a name or a number"),
        (lambda c: c["model_state"].update(c=torch.ones(1)), "model_state.c"),
        (lambda c: c.update(digests={}), "model_state"),
        (lambda c: c.update(digests=3), "model_state"),
    ],
)
def test_whatever_is_changed_is_named(saved, change, name):
    changed = torch.load(saved, weights_only=True)
    change(changed)
    torch.save(changed, saved)
    assert f"damaged or changed: {name}" in refusal(saved)


def test_a_tensor_that_is_gone_is_noticed(saved):
    changed = torch.load(saved, weights_only=True)
    del changed["model_state"]["a"]
    torch.save(changed, saved)
    assert "damaged or changed: a name or a number" in refusal(saved)


def test_any_flipped_byte_of_an_old_file_is_found_too(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(content(), path)
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randperm(len(good), generator=generator)[:150].tolist():
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        try:
            loaded = load_checkpoint(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        assert digests(loaded) == digests(content())


def test_members_that_changed_places_are_found(saved):
    parts = members(saved)
    names = sorted(name for name in parts if "/data/" in name and parts[name])
    parts[names[0]], parts[names[1]] = parts[names[1]], parts[names[0]]
    write(saved, parts)
    refusal(saved)


def test_a_tensor_of_more_values_than_its_member_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model_state": {"a": torch.arange(4.0)}}, path)
    parts = members(path)
    name = next(name for name in parts if name.endswith("data.pkl"))
    assert parts[name].count(b"K\x04") == 2  # of the storage and of the tensor
    write(path, {**parts, name: parts[name].replace(b"K\x04", b"K\x40")})
    refusal(path)


def test_a_storage_of_another_size_is_refused_by_us_where_torch_does_not(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    torch.save({"model_state": {"a": torch.arange(4.0)}}, path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: {"model_state": {"a": torch.arange(8.0)}})
    assert "a tensor in it is of another size than its values" in refusal(path)


def test_a_tensor_that_repeats_its_values_endlessly_is_refused(tmp_path):
    torch.save({"model_state": {"a": torch.zeros(1).expand(1 << 20, 1 << 20)}}, tmp_path / "model.pth")
    assert "more values than are in the file" in refusal(tmp_path / "model.pth")


def test_a_tree_without_end_is_refused(tmp_path):
    tree: list = []
    for _ in range(40):
        tree = [tree, tree]
    torch.save({"model_state": {}, "tree": tree}, tmp_path / "model.pth")
    assert "too many values" in refusal(tmp_path / "model.pth")
    deep: list = []
    for _ in range(60):
        deep = [deep]
    torch.save({"model_state": {}, "tree": deep}, tmp_path / "model.pth")
    assert "too deep" in refusal(tmp_path / "model.pth")


# ---- archives


def test_a_compressed_archive_is_refused(saved):
    write(saved, members(saved), zipfile.ZIP_DEFLATED)
    assert "is compressed; expected plain members" in refusal(saved)


def test_a_bomb_is_refused_before_it_is_opened(tmp_path):
    path = write(tmp_path / "model.pth", {"model/data.pkl": b"\0" * (64 << 20)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000 and "is compressed" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_occurs_twice_is_refused(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(archive.namelist()[0], b"other")
    assert "a member twice" in refusal(saved)


def test_members_that_share_bytes_are_refused(tmp_path):
    plain = write(tmp_path / "plain.zip", {"a": b"x" * 1000, "b": b"y"}).read_bytes()
    central = plain.index(b"PK\x01\x02")
    second = plain.index(b"PK\x01\x02", central + 4)
    entry = bytearray(plain[central:second])
    entry[46:47] = b"b"  # a second name for the bytes of a
    forged = plain[:second] + bytes(entry) + plain[plain.index(b"PK\x05\x06") :]
    forged = forged.replace(b"PK\x05\x06", b"PK\x05\x06", 1)
    (tmp_path / "forged.zip").write_bytes(forged)
    with pytest.raises(ValueError):
        check_archive(tmp_path / "forged.zip")


def test_an_encrypted_member_is_refused(tmp_path):
    data = bytearray(write(tmp_path / "a.zip", {"a": b"1"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="a in it is encrypted"):
        check_archive(tmp_path / "a.zip")


def test_a_member_larger_than_the_file_is_refused(tmp_path):
    data = bytearray(write(tmp_path / "a.zip", {"a": b"1"}).read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 20 : central + 28] = b"\xff\xff\xff\x7f" * 2
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="its members are larger than the file"):
        check_archive(tmp_path / "a.zip")


def test_a_wrong_checksum_is_named(tmp_path):
    data = write(tmp_path / "a.zip", {"a": b"12345"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"12345", b"12346"))
    with pytest.raises(ValueError, match="a in it does not have its checksum, so it is damaged"):
        check_archive(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged, cut off or of another kind: File is not a zip file"):
        check_archive(tmp_path / "a.zip")


# ---- digests


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_a_digest_is_of_the_values_whatever_their_layout(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    assert tensor_digest(tensor) == tensor_digest(tensor.clone())
    if tensor.ndim == 2:
        assert tensor_digest(tensor.T.contiguous().T) == tensor_digest(tensor) != tensor_digest(tensor.T)
    if tensor.numel():
        assert tensor_digest(torch.zeros_like(tensor)) != tensor_digest(tensor)


def test_keys_of_different_types_are_told_apart():
    assert digests({1: "a"}) != digests({"1": "a"})
    assert digests(["a"]) != digests(("a",)) and digests([]) != digests({})
    assert digests({"a": 1}) != digests({"a": True}) and digests({"a": None}) != digests({"a": "None"})
    with pytest.raises(ValueError, match="a key of type tuple"):
        digests({(1, 2): 3})


def test_leaves_have_places():
    found = dict(leaves({"x": {"y": [5, 6]}, 2: "z"}))
    assert {place: found[place] for place in ("x.y.0", "x.y.1", "2")} == {"x.y.0": 5, "x.y.1": 6, "2": "z"}


def test_a_checkpoint_of_another_program_is_no_archive(tmp_path):
    buffer = io.BytesIO()
    torch.save({"model_state": STATE}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "model.pth").write_bytes(buffer.getvalue())
    assert "not a checkpoint of tensors and numbers: damaged, cut off or of another kind" in refusal(
        tmp_path / "model.pth"
    )
