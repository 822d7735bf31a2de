"""SITS-BERT: what is contaminated, and that only this is to be restored."""

from __future__ import annotations

import pytest
import torch

from datasets.transforms import standardise, vegetation_weight
from models import build_model
from pretraining.bert import BERT, contaminated
from tests.support.pretexts import OFF, WORLD, random_series
from utils.errors import UsageError

STD = (standardise(torch.ones(10)) - standardise(torch.zeros(10))).reciprocal()  # of the bands


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(view, true) -> torch.Tensor:
    """What was added, in reflectance (B, S, 10)."""
    return (view.x - true) * STD


def test_as_many_observations_as_asked_for_have_noise_of_the_asked_size():
    series = random_series([60] * 400)
    view, true, chosen = contaminated(series, generator(), 40, "rc", 0.15, 0.3)
    noise = noise_of(view, true)
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (noise[~chosen].abs() < 1e-5).all()
    up = noise[chosen].mean(1) > 0
    assert up.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (noise[chosen][up] >= -1e-5).all() and (noise[chosen][~up] <= 1e-5).all()
    size = noise[chosen].abs()
    assert size.max().item() == pytest.approx(0.3, abs=0.005) and size.mean().item() == pytest.approx(0.15, abs=0.005)
    assert (size.std(1) > 0.02).all()  # drawn for each band


@pytest.mark.parametrize("method", ["rc", "pad"])
def test_the_true_values_are_those_of_the_series(method):
    series = random_series([12, 7, 20])
    view, true, chosen = contaminated(series, generator(1), 12, method, 0.5, 0.5)
    expected = standardise(series.values)
    for row in range(3):
        for step in range(12):
            if view.mask is not None and view.mask[row, step]:
                assert not true[row, step].any() and not view.x[row, step].any() and not chosen[row, step]
                continue
            place = series.doy[row].tolist().index(view.doy[row, step].item())
            torch.testing.assert_close(true[row, step], expected[row, place])
    assert (view.mask is None) == (method == "rc")
    if method == "pad":
        assert view.mask.tolist() == [[False] * 12, [False] * 7 + [True] * 5, [False] * 12]
    values = torch.where(chosen[..., None], view.x, true) * STD - standardise(torch.zeros(10)) * STD
    torch.testing.assert_close(view.weight, vegetation_weight(values, view.mask), rtol=1e-4, atol=1e-5)


def pretext(method: str = "rc", **options) -> BERT:
    torch.manual_seed(0)
    encoder = build_model("transformer", sequencelength=12, use_doy=True, init="torch", dropout=0.0)
    return BERT(encoder, size=12, method=method, **options)


def test_the_loss_is_the_mean_squared_error_of_what_is_contaminated():
    bert = pretext(probability=0.4).eval()
    view, true, chosen = bert.views(random_series([12, 9, 15]), generator())
    output = bert(view, true, chosen)
    with torch.no_grad():
        restored = bert.encoder_q.decoder(bert.encoder_q.encode(view))
    loss, noise = ((part - true)[chosen].square().mean() for part in (restored, view.x))
    assert output.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert output.figures["restored"].item() == pytest.approx(1 - (loss / noise).item(), rel=1e-4)


def test_the_true_values_of_other_observations_do_not_matter():
    bert = pretext(probability=0.4).eval()
    view, true, chosen = bert.views(random_series([12, 9, 15]), generator())
    other = torch.where(chosen[..., None], true, true + 1)
    assert bert(view, other, chosen).loss.item() == pytest.approx(bert(view, true, chosen).loss.item())
    assert bert(view, true, torch.zeros_like(chosen)).loss.item() == 0


def test_all_parameters_have_gradients():
    bert = pretext(probability=0.5)
    bert(*bert.views(random_series([12, 9, 15]), generator())).loss.backward()
    assert all(parameter.grad is not None for parameter in bert.parameters())
    assert tuple(bert.encoder_q.decoder.weight.shape) == (10, 128)


@pytest.mark.parametrize("method", ["rc", "pad"])
def test_evaluation_is_the_mean_over_all_contaminated_observations(method):
    bert = pretext(method, probability=0.3).eval()
    lengths = [12] * 5, [8]
    batches = [bert.views(random_series(some, seed), generator(seed)) for seed, some in enumerate(lengths)]
    state = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    found = bert.evaluate(iter(batches), OFF, WORLD)
    wrong, noise = [], []
    with torch.no_grad():
        for view, true, chosen in batches:
            wrong.append((bert.encoder_q.decoder(bert.encoder_q.encode(view)) - true)[chosen].square().mean(-1))
            noise.append((view.x - true)[chosen].square().mean(-1))
    loss, noise = torch.cat(wrong).mean().item(), torch.cat(noise).mean().item()
    assert found == {"loss": pytest.approx(loss, rel=1e-5), "restored": pytest.approx(1 - loss / noise, rel=1e-4)}
    assert all(torch.equal(tensor, state[name]) for name, tensor in bert.state_dict().items())


def test_held_out_series_without_a_contaminated_observation_have_no_loss():
    bert = pretext().eval()
    view, true, chosen = bert.views(random_series([12, 9, 15]), generator())
    found = bert.evaluate([(view, true, torch.zeros_like(chosen))], OFF, WORLD)
    assert found == {"loss": 0, "restored": 1}


def test_a_network_without_features_of_observations_is_refused():
    with pytest.raises(UsageError, match="TempCNN has no features of single observations"):
        BERT(build_model("tempcnn", sequencelength=12), size=12, method="rc")


def test_its_settings_are_its_identity():
    assert pretext(probability=0.3, noise=0.2).identity() == {"probability": 0.3, "noise": 0.2}
