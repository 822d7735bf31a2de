"""Two processes, one run: what two ranks compute together is what one process computes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import main_moco
import main_tscls
from moco.builder import MoCo
from models import build_model
from pretraining.step import compiler
from tests.support.runs import SMALL, checkpoint, column, newest, pretrain, rows, same, train, weights
from utils import report
from utils.errors import UsageError
from utils.runtime import distributed
from utils.runtime.distributed import World

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parents[2]
BATCH, STEPS, SIZE = 8, 3, 20
PRETRAINING = ("transformer", "--rc", "--use-doy", "--mlp", "--useall", "--moco-k", "50", "-e", "2", *SMALL)
TESTING = ("-n", "50", "-e", "1", "--interp", "--recipe", "published", *SMALL)


# ---- one process alone


def test_a_single_process_is_its_own_rank():
    world = distributed.start("cpu")
    assert world == (0, 1, torch.device("cpu")) and world.is_main
    part = torch.arange(3)
    assert torch.equal(world.all_gather(part), part) and torch.equal(world.all_reduce_sum_(part), part)
    assert world.largest(3, True, 0) == (3, True, 0) and world.gather_objects("own") == ["own"]
    world.barrier()
    world.finish()


@pytest.mark.parametrize("device", ["mps", "meta", "xpu:0"])
def test_other_devices_are_refused(device):
    with pytest.raises(UsageError, match=f"--device {device}: cannot be used .* give cpu, cuda or cuda:N"):
        distributed.start(device)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_are_the_batch_cut_in_order(count):
    batch = np.arange(13)[::-1]
    shards = [World(rank, count, torch.device("cpu")).shard(batch) for rank in range(count)]
    np.testing.assert_array_equal(np.concatenate(shards), batch)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


# ---- what each of two ranks does; results are left in files


def make_moco(bn_splits: int, *, fixed_statistics: bool) -> MoCo:
    torch.manual_seed(0)
    encoder = build_model("transformer", use_doy=True, init="torch", dropout=0)
    moco = MoCo(encoder, dim=8, K=20, mlp=True, bn_splits=bn_splits).train()
    for module in moco.modules():
        if fixed_statistics and isinstance(module, nn.BatchNorm1d):
            module.eval()
    return moco


def make_view(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, SIZE, 10, generator=generator)
    doy = torch.randint(1, 367, (BATCH, SIZE), generator=generator).sort(1).values
    mask = torch.arange(SIZE) >= torch.randint(5, SIZE + 1, (BATCH, 1), generator=generator)
    return x, mask, doy, torch.full((BATCH, SIZE), 1 / SIZE)


def moco_steps(rank: int, ranks: int, *, bn_splits: int, fixed_statistics: bool, compiled: bool = False) -> dict:
    """Training steps on fixed global batches, of which a rank sees its share."""
    moco = make_moco(bn_splits, fixed_statistics=fixed_statistics)
    world = World(rank, ranks, CPU)
    model = compiler(world)(moco, backend="aot_eager") if compiled else moco
    model = model if ranks == 1 else DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(moco.encoder_q.parameters(), 0.1)
    losses, keys = [], []
    for step in range(STEPS):
        view_q, view_k = (tuple(part.chunk(ranks)[rank] for part in make_view(2 * step + i)) for i in range(2))
        torch.manual_seed(step + 1000 * rank)  # the first rank's numbers shuffle for all
        moco.update_key_encoder()
        contrast = model(view_q, view_k)
        optimizer.zero_grad()
        contrast.loss.backward()
        optimizer.step()
        moco.enqueue(contrast.keys)
        losses.append(world.all_reduce_sum_(contrast.loss.detach()) / ranks)
        keys.append(world.all_gather(contrast.keys))
    gradients = {name: p.grad for name, p in moco.encoder_q.named_parameters()}
    made = {"losses": torch.stack(losses), "keys": torch.stack(keys)}
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] if compiled else 0
    return made | {"gradients": gradients, "state": moco.state_dict(), "graphs": graphs}


STEPPING = {
    "fixed": {"bn_splits": 1, "fixed_statistics": True},
    "shuffled": {"bn_splits": 1, "fixed_statistics": False},
    "compiled": {"bn_splits": 1, "fixed_statistics": False, "compiled": True},
}


def steps(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for name, options in STEPPING.items():
        torch.save(moco_steps(rank, 2, **options), folder / f"{name}-{rank}.pth")
    dist.destroy_process_group()


def collectives(rank: int, folder: Path) -> None:
    world = distributed.start("cpu")
    part = torch.arange(rank, 3)  # 0 1 2 of the first, 1 2 of the second
    found = {"gathered": world.all_gather(part), "total": world.all_reduce_sum_(torch.tensor([rank + 1.0]))}
    found["largest"] = [*world.largest(rank == 1, 7 - rank, 2 * rank)]
    found["objects"] = world.gather_objects({"rank": rank})
    found["ranks"] = [world.rank, world.size, world.is_main]
    time.sleep(0.5 * (rank == 0))
    found["came"] = time.time()
    world.finish()
    torch.save(found | {"left": time.time()}, folder / f"collectives-{rank}.pth")


def pretraining(rank: int, folder: Path, name: str = "pretraining", *flags: object) -> None:
    """A whole run; each rank then leaves its model."""
    runs, build = [], main_moco.build_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_moco, "build_run", lambda *given: runs.append(build(*given)) or runs[-1])
        given = (*PRETRAINING, "--datapath", (folder / "root").read_text(), "-l", folder / name, *flags)
        main_moco.main(list(map(str, given)))
    torch.save(runs[0].module.state_dict(), folder / f"{name}-{rank}.pth")


def resuming(rank: int, folder: Path) -> None:
    """Of a run that one process has begun."""
    pretraining(rank, folder, "resuming", "-e", 3, "--resume", newest(folder / "alone") / "model_last.pth")


def classify(folder: Path, *flags: str) -> None:
    main_tscls.main([*flags, *TESTING, "--datapath", (folder / "root").read_text()])


def training(rank: int, folder: Path) -> None:
    classify(folder, "tempcnn", "-l", str(folder / "training"))


def uneven_shard(world: World, batch: np.ndarray, rank: int | None = None) -> np.ndarray:
    return np.split(batch, [len(batch) // 3])[world.rank if rank is None else rank]


def evaluation(rank: int, folder: Path) -> None:
    """Of a classifier that one process has trained; rank 1 gets twice as many series as rank 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "shard", uneven_shard)
        classify(folder, "lstm", "-l", str(folder / "testing"), "--eval")


def estimators(rank: int, folder: Path) -> None:
    classify(folder, "gbt", "-l", str(folder / "estimators"))


JOBS = (collectives, steps, pretraining, resuming, training, evaluation, estimators)


def work(rank: int, folder: Path, ports: list[int]) -> None:
    torch.set_num_threads(1)
    report._pictures = lambda: False
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in place.items()})
    for job, port in zip(JOBS, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        job(rank, folder)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def two_ranks(data_root, tmp_path_factory) -> Path:
    """Where two processes have done all jobs."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "root").write_text(str(data_root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_pictures", lambda: False)
        train(data_root, folder / "testing", "--interp", "--recipe", "published", model="lstm")
        (folder / "testing" / "T_LSTM_R50_Int_2019_Seed111" / "testlog.csv").rename(folder / "tested-by-one.csv")
        main_moco.main([*PRETRAINING, "--datapath", str(data_root), "-l", str(folder / "alone")])
        patch.setenv("OMP_NUM_THREADS", "1")
        processes = multiprocessing.spawn(work, (folder, free_ports(len(JOBS))), nprocs=2, join=False)
        wait_for(processes, seconds=240)
    return folder


def wait_for(processes: multiprocessing.ProcessContext, seconds: float) -> None:
    """Until all have ended; an exception in one of them is raised here."""
    end = time.monotonic() + seconds
    while not processes.join(timeout=1):
        if time.monotonic() > end:
            for process in processes.processes:
                process.kill()
            pytest.fail("two ranks wait for each other")


def of_ranks(folder: Path, name: str) -> list[dict]:
    return [torch.load(folder / f"{name}-{rank}.pth", weights_only=True) for rank in range(2)]


# ---- and what is checked of it


def test_collectives(two_ranks):
    for rank, found in enumerate(of_ranks(two_ranks, "collectives")):
        assert found["gathered"].tolist() == [0, 1, 2, 1, 2] and found["total"].tolist() == [3]
        assert found["largest"] == [1, 7, 2] and found["objects"] == [{"rank": 0}, {"rank": 1}]
        assert found["ranks"] == [rank, 2, rank == 0]


def test_ranks_leave_together(two_ranks):
    """Or else those that still work take the others for dead."""
    came, left = ([found[name] for found in of_ranks(two_ranks, "collectives")] for name in ("came", "left"))
    assert min(left) >= max(came)


def test_two_ranks_do_the_steps_of_one(two_ranks):
    """Same global batch, no dropout, same statistics: losses, gradients, weights, keys and queue."""
    expected = moco_steps(0, 1, bn_splits=1, fixed_statistics=True)
    for found in of_ranks(two_ranks, "fixed"):
        torch.testing.assert_close(found["losses"], expected["losses"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["keys"], expected["keys"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["gradients"], expected["gradients"], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found["state"], expected["state"], atol=1e-4, rtol=1e-3)


def test_shuffled_statistics_of_two_ranks_are_those_of_two_splits(two_ranks):
    """Each rank normalises its part of the queries, and of the shuffled keys: as --bn-splits 2 does on one."""
    expected = moco_steps(0, 1, bn_splits=2, fixed_statistics=False)
    whole = moco_steps(0, 1, bn_splits=1, fixed_statistics=False)
    for found in of_ranks(two_ranks, "shuffled"):
        torch.testing.assert_close(found["losses"], expected["losses"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["keys"], expected["keys"], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found["gradients"], expected["gradients"], atol=1e-4, rtol=1e-2)
    assert not torch.allclose(whole["keys"], expected["keys"], atol=1e-3)


def test_compiled_steps_of_two_ranks_are_the_uncompiled(two_ranks):
    """As --compile has them compiled, but for the generated code."""
    for plain, compiled in zip(of_ranks(two_ranks, "shuffled"), of_ranks(two_ranks, "compiled"), strict=True):
        assert compiled.pop("graphs") > plain.pop("graphs")
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", STEPPING)
def test_queues_are_equal_to_the_bit(two_ranks, name):
    first, second = (found["state"] for found in of_ranks(two_ranks, name))
    assert torch.equal(first["queue"], second["queue"]) and first["queue_ptr"].tolist() == [STEPS * BATCH % 20]
    assert all(torch.equal(first[key], second[key]) for key in first if "running" not in key)


def test_pretraining_by_two(two_ranks, data_root, tmp_path):
    first, second = of_ranks(two_ranks, "pretraining")
    assert torch.equal(first["queue"], second["queue"]) and first["queue_ptr"].item() == 2 * 48 % 50
    assert all(torch.equal(first[key], second[key]) for key in first if "running" not in key)
    (folder,) = (two_ranks / "pretraining").iterdir()
    assert folder.name == "P_MoCoV2TransformerModel_RC_2019_doy"
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert [row["epoch"] for row in rows(folder)] == ["0", "1"]
    assert np.isfinite(column(folder, "train_loss") + column(folder, "valid_loss")).all()
    assert same(checkpoint(folder, "model_last.pth")["model_state"], first)


def test_one_goes_on_where_two_stopped(two_ranks, data_root, tmp_path):
    (folder,) = (two_ranks / "pretraining").iterdir()
    flags = ("--rc", "--use-doy", "--mlp", "--moco-k", 50, "-e", 3, "--resume", folder / "model_last.pth")
    resumed = pretrain(data_root, tmp_path, *flags)
    assert [row["epoch"] for row in rows(resumed)] == ["0", "1", "2"] and rows(resumed)[:2] == rows(folder)
    assert checkpoint(resumed, "model_last.pth")["model_state"]["queue_ptr"].item() == 3 * 48 % 50


def test_two_go_on_where_one_stopped(two_ranks):
    before = weights(newest(two_ranks / "alone"))
    first, second = of_ranks(two_ranks, "resuming")
    assert all(torch.equal(first[key], second[key]) for key in first if "running" not in key)
    assert before["queue_ptr"].item() == 2 * 48 % 50 and first["queue_ptr"].item() == 3 * 48 % 50
    assert torch.equal(first["queue"][:, 44:46], before["queue"][:, 44:46])  # of 50 keys, 48 are new
    folder = newest(two_ranks / "resuming")
    assert [row["epoch"] for row in rows(folder)] == ["0", "1", "2"] and column(folder, "lr") == [1e-3] * 3
    after = checkpoint(folder, "model_last.pth")
    assert after["epoch"] == 2 and same(after["model_state"], first)
    assert {state["step"].item() for state in after["training"]["optimizer"]["state"].values()} == {3 * 3}


def test_training_by_two(two_ranks):
    folder = two_ranks / "training" / "T_TempCNN_R50_Int_2019_Seed111"
    assert [row["epoch"] for row in rows(folder)] == ["0"]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert np.load(folder / "test_conf_mat.npy").sum() == 30
    assert (folder.parent / "comparison.csv").exists()


def test_evaluation_by_two_is_exact(two_ranks):
    """Every series counts once, also where they cannot be shared equally."""
    by_two = rows(two_ranks / "testing" / "T_LSTM_R50_Int_2019_Seed111", "testlog.csv")
    by_one = rows(two_ranks, "tested-by-one.csv")
    for one, two in zip(by_one, by_two, strict=True):
        assert all(one.pop(name) == two.pop(name) for name in ("data", "prior"))
        assert {k: float(v) for k, v in two.items() if v} == pytest.approx({k: float(v) for k, v in one.items() if v})


def test_estimators_under_two(two_ranks):
    (folder,) = (path for path in (two_ranks / "estimators").iterdir() if path.is_dir())
    assert np.load(folder / "test_conf_mat.npy").sum() == 30
    assert column(folder, "oa", "testlog.csv")[0] > 0.5
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_torchrun(data_root, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main_moco.py"]
    argv = [*launch, "lstm", "-n", 21, "-b", 20, "--moco-k", 20, "-e", 1, "-d", "cpu", "--sequencelength", 20]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    argv = [str(word) for word in (*argv, "--datapath", data_root, "-l", tmp_path)]
    done = subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 0: loss") == 1 and done.stdout.count("best held-out loss") == 1
    folder = tmp_path / "P_MoCoV1LSTM_R21_Pad_2019_Seed111"
    assert len(rows(folder)) == 1 and weights(folder)["queue_ptr"].item() == 18  # of 19 that cannot be halved
