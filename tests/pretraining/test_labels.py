"""Learning from labels: what it sees, its loss, and the classifier that its checkpoint is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import main_moco
from datasets.catalog import Selection, open_labelled
from datasets.classmap import CDL20, ClassMap
from datasets.errors import DataError
from datasets.transforms import model_input, temporal_shift
from models import build_model
from pretraining import PRETEXTS, needs_labels
from pretraining.data import HeldOutViews, PretrainingData, open_pool
from pretraining.labels import Labels
from tests.support.pretexts import OFF, WORLD, input_of, random_series
from tests.support.runs import calls_of, checkpoint, pretrain, refused
from tscls.classifier import load_classifier
from utils.checkpoint import slim
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams

THREE = ClassMap.of([("wheat", 1, (0, 0, 0)), ("rice", 2, (0, 0, 0))])
LABELS = torch.tensor([2, 0, 2, 1, 0, 2])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pretext() -> Labels:
    torch.manual_seed(0)
    network = build_model("transformer", sequencelength=12, use_doy=True, init="torch", num_classes=3, dropout=0.0)
    return Labels(network, lambda series, generator: series.values, THREE)


def plain_scores(logits: torch.Tensor, labels: torch.Tensor) -> dict:
    logits, labels = logits.double().numpy(), labels.numpy()
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(probability[np.arange(len(labels)), labels]).mean()
    return {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx((logits.argmax(1) == labels).mean())}


def test_the_loss_is_the_cross_entropy_of_the_class_scores():
    labels = pretext().eval()
    output = labels(input_of(6, 1), LABELS)
    logits = labels.encoder_q(input_of(6, 1)).detach()
    assert {"loss": output.loss.item(), "accuracy": output.figures["accuracy"].item()} == plain_scores(logits, LABELS)
    best = logits.argmax(1)
    assert labels(input_of(6, 1), best).figures["accuracy"] == 1
    assert labels(input_of(6, 1), (best + 1) % 3).figures["accuracy"] == 0


def test_all_parameters_have_gradients():
    labels = pretext()
    labels(input_of(6, 1), LABELS).loss.backward()
    assert all(parameter.grad is not None for parameter in labels.parameters())


def test_evaluation_is_the_mean_over_all_series_and_changes_nothing():
    labels = pretext().eval()
    state = {name: tensor.clone() for name, tensor in labels.state_dict().items()}
    batches = [(input_of(4, 1), LABELS[:4]), (input_of(2, 2), LABELS[4:])]
    found = labels.evaluate(iter(batches), OFF, WORLD)
    with torch.no_grad():
        logits = torch.cat([labels.encoder_q(view) for view, _ in batches])
    assert found == plain_scores(logits, LABELS)
    assert all(torch.equal(tensor, state[name]) for name, tensor in labels.state_dict().items())


def test_its_classes_are_its_identity_and_its_views_have_labels():
    labels, series = pretext(), random_series([12, 9])._replace(labels=LABELS[:2])
    assert labels.identity() == {"classes": ["wheat", "rice", "Other"]}
    assert labels.views(series, generator()) == (series.values, series.labels)


# ---- as the command line builds it


def built(data_root, *flags: str) -> Labels:
    args = main_moco.get_args(["transformer", "--pretext", "labels", "--datapath", str(data_root), *flags])
    network = build_model("transformer", sequencelength=args.sequencelength, use_doy=True)
    return PRETEXTS["labels"](network, None, vars(args))


@pytest.mark.parametrize(("flags", "method"), [((), "pad"), (("--rc",), "rc")])
def test_its_views_are_those_of_a_classifier_in_training(data_root, flags, method):
    labels, series = built(data_root, "-seq", "8", *flags), random_series([12, 9, 5] * 20)._replace(labels=LABELS)
    view, known = labels.views(series, generator())
    source = generator()
    shifted = temporal_shift(series, source)
    torch.rand(series.doy.shape, generator=source), torch.randn(series.values.shape, generator=source)  # noise
    torch.rand(series.doy.shape, generator=source)  # removal
    expected = model_input(shifted, 8, method, source)
    assert known is LABELS and (view.mask is None) == (method == "rc")
    for part, other in zip(view, expected, strict=True):
        assert part is other is None or torch.equal(part, other)
    assert not torch.equal(shifted.values, series.values)


def test_the_options_of_the_views_are_followed(data_root):
    series = random_series([12] * 50)._replace(labels=LABELS)
    plain = built(data_root, "-seq", "12", "--no-shift").views(series, generator())[0]
    torch.testing.assert_close(plain.x, model_input(series, 12, "pad", None).x)
    noisy = built(data_root, "-seq", "12", "--no-shift", "--noise-probability", "0.5").views(series, generator())[0]
    assert ((noisy.x - plain.x).abs() > 1e-4).any(2).float().mean().item() == pytest.approx(0.5, abs=0.1)
    fewer = built(data_root, "-seq", "12", "--removal-probability", "0.5").views(series, generator())[0]
    assert fewer.mask.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_only_pretexts_that_learn_from_labels_need_them():
    assert {name for name in PRETEXTS if needs_labels(name)} == {"labels", "supcon", "moco+labels"}


# ---- labelled series


def pool(data_root, **more):
    return open_pool(data_root, 2019, Selection(seed=5, **more), has_labels=True)


def test_the_pool_is_train_and_valid_as_a_classifier_gets_them(data_root):
    splits = open_labelled(data_root, 2019, Selection(seed=5, use_all=True))
    series = pool(data_root, use_all=True)
    assert len(series) == len(splits.train) + len(splits.valid) == 110
    np.testing.assert_array_equal(series.labels, np.concatenate((splits.train.labels, splits.valid.labels)))
    assert len(pool(data_root, num=50)) == 50
    assert not np.array_equal(pool(data_root, num=50).labels, open_pool_labels(data_root, seed=6))
    unlabelled = [open_pool(data_root, 2019, Selection(30, use_all=all_), has_labels=False) for all_ in (False, True)]
    assert [len(series) for series in unlabelled] == [30, 60]


def open_pool_labels(data_root, seed: int) -> np.ndarray:
    return open_pool(data_root, 2019, Selection(50, seed=seed), has_labels=True).labels


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_with_the_labels_of_their_series(data_root, workers):
    series = pool(data_root, use_all=True)
    known = {series.store.series(row)[0].tobytes(): label for row, label in enumerate(series.labels)}
    worlds = [World(rank, 2) for rank in range(2)]
    ranks = [PretrainingData(series, 16, RandomStreams(1, WORLD.device), w, workers, has_labels=True) for w in worlds]
    for batches in zip(*(data.train(3, 1) for data in ranks), strict=True):
        for batch in batches:
            assert len(batch.labels) == 8
            for values, length, label in zip(batch.values, batch.length, batch.labels, strict=True):
                digital_numbers = (values[:length] * 10000).round().short().numpy()
                assert known[digital_numbers.tobytes()] == label
    (data, _), held_out = ranks, [batch for data in ranks for batch in data.held_out()]
    assert sum(len(batch.labels) for batch in held_out) == len(data.held_out_positions)
    assert len(data.example().labels) == 8 and data.example().labels.dtype == torch.int64
    unlabelled = PretrainingData(series, 16, RandomStreams(1, WORLD.device), WORLD)
    assert unlabelled.example().labels is None


def test_views_of_held_out_series_are_the_same_in_every_pass(data_root):
    data = PretrainingData(pool(data_root, use_all=True), 4, RandomStreams(1, WORLD.device), WORLD)
    views = HeldOutViews(lambda series, generator: (torch.rand(len(series.length), generator=generator),), data)
    first, second = ([draw for (draw,) in views] for _ in range(2))
    assert sum(map(len, first)) == 11 and len(first) == 3
    assert torch.equal(torch.cat(first), torch.cat(second)) and len(set(torch.cat(first).tolist())) == 11
    data.streams.seed = 2
    assert not torch.equal(torch.cat([draw for (draw,) in views]), torch.cat(first))


def test_the_fingerprint_of_labelled_series_has_their_labels(data_root):
    series = pool(data_root, use_all=True)
    plain, labelled = series.fingerprint(), series.fingerprint(with_labels=True)
    series.store.labels = np.roll(series.labels, 1)
    assert series.fingerprint() == plain != labelled != series.fingerprint(with_labels=True)


# ---- whole runs


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("results")
    return pretrain(data_root, logdir, "--pretext", "labels", "--rc", "--use-doy", "-lr", "0.003", "-e", 3)


def test_a_checkpoint_is_a_classifier(data_root, run, tmp_path):
    classifier = load_classifier(run, "cpu")
    assert classifier.classmap == CDL20 and classifier.name == "transformer" and classifier.model.use_doy
    assert (classifier.way.sequencelength, classifier.way.method, classifier.draws) == (20, "rc", 0)
    state = checkpoint(run)["model_state"]
    assert all(
        torch.equal(tensor, state[f"encoder_q.{name}"]) for name, tensor in classifier.model.state_dict().items()
    )
    series = open_labelled(data_root, 2019, Selection(use_all=True)).eval
    predicted = torch.cat(list(classifier.predict(series))).argmax(1).numpy()
    assert (predicted == series.labels).mean() > 0.8
    slim(run / "model_best.pth", tmp_path / "small.pth")
    small = load_classifier(tmp_path / "small.pth", "cpu")
    assert small.classmap == CDL20
    assert torch.equal(torch.cat(list(small.predict(series))), torch.cat(list(classifier.predict(series))))


def test_other_labels_of_the_same_series_are_not_resumed(data_root, run, tmp_path, monkeypatch, capsys):
    opened = open_pool(data_root, 2019, Selection(use_all=True), has_labels=True)
    opened.store.labels = np.roll(opened.labels, 1)
    monkeypatch.setattr(main_moco, "open_pool", lambda *args, **options: opened)
    flags = (
        "transformer --pretext labels --rc --use-doy --useall -b 16 --moco-k 64 --sequencelength 20 -d cpu -lr 0.003"
    )
    argv = [*flags.split(), "--datapath", data_root, "-l", tmp_path, "--resume", run / "model_last.pth"]
    assert "data of 110 series" in refused(main_moco, argv, capsys)


def test_a_root_without_labels_is_refused(data_root, tmp_path, capsys, monkeypatch):
    calls = calls_of(main_moco, "open_pool", monkeypatch)
    argv = ["transformer", "--pretext", "labels", "--datapath", data_root, "--year", 2020, "-l", tmp_path, "-d", "cpu"]
    assert "no train series" in refused(main_moco, argv, capsys)
    assert calls[0][-1] is True
    with pytest.raises(DataError, match="the budget needs"):
        pool(data_root, num=1000)
