"""The windows of a map: what is read for one, and what becomes of it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from datasets.errors import DataError
from datasets.imagery.raster import BadFile
from mapping import windows
from mapping.legend import Entry
from mapping.windows import class_probabilities, full_batches, per_cent, smoothed
from tests.support.image_files import Scene, make_scene
from tests.support.windows import (
    LEGEND,
    KnownClassifier,
    KnownImages,
    Mask,
    by_pixel,
    drawn,
    part_of,
    plan_of,
    some_of,
    whole_map,
)


def scene_of(height: int, width: int, days: int = 4, seed: int = 0, gaps: float = 0.4) -> Scene:
    """Of any size, with gaps of single pixels."""
    scene = make_scene(seed, days, height + height % 2, width + width % 2, gaps=0)
    values = scene.values[:, :, :height, :width].copy()
    missing = np.random.default_rng(seed).random((days, 1, height, width)) < gaps
    return scene._replace(values=np.where(missing, 0, values).astype(np.uint16))


@st.composite
def cases(draw):
    """A scene, and how its map is made."""
    height, width = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    scene = scene_of(height, width, draw(st.integers(1, 4)), draw(st.integers(0, 99)), draw(st.sampled_from([0, 0.4])))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    box = (top, left, draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width)))
    inside = np.random.default_rng(draw(st.integers(0, 9))).random((height, width)) < draw(st.sampled_from([0.2, 0.7]))
    how = {"min_observations": draw(st.integers(1, 3)), "smooth": draw(st.sampled_from([1, 3, 5, 9]))}
    return scene, box, inside if draw(st.booleans()) else None, how, draw(st.integers(1, 12))


@settings(deadline=None)
@given(cases())
def test_a_map_is_the_class_of_every_pixel_whatever_its_windows_box_and_smoothing(case):
    scene, box, inside, how, size = case
    images, classifier = KnownImages(scene), KnownClassifier()
    within = None if inside is None else Mask(inside)
    found = whole_map(plan_of(images, box=box, within=within, size=size, probabilities=True, **how), classifier)
    inside = np.ones(scene.values.shape[2:], bool) if inside is None else inside
    probability, valid = by_pixel(scene, inside, how["min_observations"])
    if how["smooth"] > 1:
        probability = smoothed(probability, valid, how["smooth"])
    cut = (..., slice(box[0], box[2]), slice(box[1], box[3]))
    np.testing.assert_array_equal(found.values, drawn(probability, valid)[cut])
    np.testing.assert_array_equal(found.probabilities, np.where(valid, np.rint(100 * probability), 255)[cut])
    outside, classified = int((~inside)[cut].sum()), int(valid[cut].sum())
    few = valid[cut].size - outside - classified
    assert found.counts == {"outside": outside, "few": few, "classified": classified}


@settings(deadline=None)
@given(cases(), st.integers(1, 3))
def test_a_map_of_turned_images_is_the_turned_map(case, turns):
    scene, _, _, how, size = case
    how["smooth"] = 1  # means are added up in another order when turned
    turned = scene._replace(values=np.rot90(scene.values, turns, (2, 3)))
    one, other = (
        whole_map(plan_of(KnownImages(each), size=size, **how), KnownClassifier()).values for each in (scene, turned)
    )
    np.testing.assert_array_equal(np.rot90(one, turns, (1, 2)), other)


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_smoothing_is_the_mean_of_the_valid_neighbours(side):
    random = np.random.default_rng(side)
    probability, valid = random.random((3, 9, 7)).astype(np.float32), random.random((9, 7)) < 0.6
    probability[:, ~valid] = 0
    with np.errstate(all="raise"):  # a warning would be seen
        found = smoothed(probability, valid, side)
    assert found.dtype == np.float64
    for row, col in np.ndindex(9, 7):
        near = [
            probability[:, r, c]
            for r, c in np.ndindex(9, 7)
            if abs(r - row) <= side // 2 and abs(c - col) <= side // 2 and valid[r, c]
        ]
        expected = np.mean(near, axis=0, dtype=np.float64) if valid[row, col] else np.zeros(3)
        np.testing.assert_allclose(found[:, row, col], expected, rtol=1e-12)


def test_a_window_reads_a_margin_as_far_as_there_are_images():
    images = KnownImages(scene_of(10, 12))
    plan = plan_of(images, box=(2, 3, 10, 11), size=4, smooth=5)
    for number in range(len(plan.windows)):
        plan.read(number)
    assert [(window, pixels) for window, pixels in images.asked] == [
        (Window(1, 0, 8, 8), None), (Window(5, 0, 7, 8), None), (Window(1, 4, 8, 6), None), (Window(5, 4, 7, 6), None)
    ]  # fmt: skip


def test_only_pixels_that_are_inside_are_read():
    images, inside = KnownImages(scene_of(6, 8)), np.zeros((6, 8), bool)
    inside[1, 2:5] = True
    plan = plan_of(images, within=Mask(inside), size=4)
    read = [plan.read(number) for number in range(4)]
    (first, mask), (second, _) = images.asked  # nothing is read for windows without such pixels
    assert (first, second) == (Window(0, 0, 4, 4), Window(4, 0, 4, 4))
    np.testing.assert_array_equal(mask, inside[:4, :4])
    for (pixels, found), part in zip(read, (np.s_[:4, :4], np.s_[:4, 4:], np.s_[4:, :4], np.s_[4:, 4:]), strict=True):
        np.testing.assert_array_equal(found, inside[part])
        assert len(pixels.lengths) == len(pixels.row) == len(pixels.col) <= found.sum()
    nothing = read[3][0]
    assert nothing.bands.shape == (0, 10) and nothing.bands.dtype == nothing.doy.dtype == np.int16
    assert nothing.lengths.dtype == np.int64 and len(nothing.doy) == 0


def test_windows_that_are_all_inside_are_read_whole():
    images = KnownImages(scene_of(3, 3))
    plan_of(images, within=Mask(np.ones((3, 3), bool))).read(0)
    assert images.asked == [(Window(0, 0, 3, 3), None)]


def test_a_file_that_cannot_be_read_is_named_with_the_window(monkeypatch):
    images = KnownImages(scene_of(10, 12))

    def broken(window, pixels):
        raise BadFile("a.tif: is corrupt")

    monkeypatch.setattr(images, "read", broken)
    plan = plan_of(images, box=(2, 3, 10, 11), size=5, smooth=3)
    with pytest.raises(BadFile) as error:
        plan.read(3)
    assert str(error.value) == "window 3 (rows 7-9, columns 8-10): a.tif: is corrupt"


def test_a_pixel_without_enough_observations_never_reaches_the_model():
    scene, classifier = scene_of(6, 6, gaps=0.6), KnownClassifier()
    part = part_of(plan_of(KnownImages(scene), min_observations=3), 0, classifier)
    lengths = scene.values.any(1).sum(0)
    assert {length for batch in classifier.batches for length in batch} == set(lengths[lengths >= 3].tolist())
    assert ((part.values[0] == 255) == (lengths < 3)).all()


def test_without_any_series_the_model_is_not_asked():
    scene = scene_of(3, 4, gaps=1)
    part = part_of(plan_of(KnownImages(scene), smooth=3, probabilities=True), 0, None)
    assert (part.values == 255).all() and (part.probabilities == 255).all()
    assert part.values.shape == (2, 3, 4) and part.probabilities.shape == (3, 3, 4)
    assert part.counts == {"outside": 0, "few": 12, "classified": 0}


def test_probabilities_are_kept_only_where_they_are_wanted():
    images = KnownImages(scene_of(3, 4))
    assert part_of(plan_of(images), 0, KnownClassifier()).probabilities is None
    assert part_of(plan_of(images, probabilities=True), 0, KnownClassifier()).probabilities.dtype == np.uint8


@pytest.mark.parametrize(
    "code, dtype, no_data", [(254, "uint8", 255), (255, "uint16", 65535), (65534, "uint16", 65535)]
)
def test_the_type_is_the_smallest_that_holds_all_codes_and_no_data(code, dtype, no_data):
    classes = (Entry(code, "Rice", (0, 0, 0), 0), *LEGEND[:2])
    plan = plan_of(KnownImages(scene_of(4, 4, gaps=0.9)), classes=classes)
    assert (plan.dtype, plan.no_data) == (dtype, no_data)
    values = part_of(plan, 0, KnownClassifier()).values
    assert values.dtype == dtype and (values == no_data).any()


def test_a_code_that_no_type_holds_is_refused_with_its_class():
    classes = (LEGEND[0], Entry(65535, "Rice", (0, 0, 0), 1))
    with pytest.raises(DataError, match="code 65535 of Rice: a map holds codes of at most 65534"):
        plan_of(KnownImages(scene_of(2, 2)), classes=classes)


def test_a_plan_can_be_sent_to_another_process():
    plan = plan_of(KnownImages(scene_of(5, 6)), size=4, smooth=3)
    other = pickle.loads(pickle.dumps(plan))
    for number in range(len(plan.windows)):
        one, two = (part_of(each, number, KnownClassifier()) for each in (plan, other))
        np.testing.assert_array_equal(one.values, two.values)


def test_per_cent_are_rounded_to_whole_numbers():
    found = per_cent(np.array([0, 0.004, 0.006, 0.505, 0.994, 0.996, 1], np.float32))
    assert found.tolist() == [0, 0, 1, 50, 99, 100, 100] and found.dtype == np.uint8


# ---- batches


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(1, 7))
def test_every_batch_is_full_and_of_one_length(lengths, size):
    lengths = np.array(lengths)
    rows, kept = full_batches(lengths, size)
    assert len(rows) == len(kept) and len(rows) % size == 0
    batches = lengths[rows].reshape(-1, size)
    assert (batches == batches[:, :1]).all() and (np.diff(batches[:, 0]) <= 0).all()
    assert sorted(rows[kept]) == list(range(len(lengths)))
    counts = np.bincount(lengths)
    assert len(batches) == sum(-(-count // size) for count in counts if count)
    for row, is_kept in zip(rows.reshape(-1, size), kept.reshape(-1, size), strict=True):
        assert is_kept[0] and (np.diff(is_kept.astype(int)) <= 0).all()
        assert (row[~is_kept] == row[is_kept][-1]).all()
        assert (np.diff(row[is_kept]) > 0).all()  # in their order


@pytest.mark.parametrize("device, size", [("cpu", 5), ("cuda", 6)])
@pytest.mark.parametrize("observations, longest, most", [(10_000, 4, 99), (19, 4, 4), (20, 4, 5), (3, 4, 1)])
def test_batches_have_one_size_that_the_longest_series_decides(device, size, observations, longest, most, monkeypatch):
    monkeypatch.setattr(windows, "CPU_BATCH", 5)
    monkeypatch.setattr(windows, "GPU_BATCH", 6)
    monkeypatch.setattr(windows, "OBSERVATIONS", observations)
    pixels, classifier = scene_of(5, 5).pixels(), KnownClassifier(device)
    chosen = np.arange(len(pixels.lengths)) % 3 > 0
    found = class_probabilities(classifier, pixels, chosen, longest)
    assert {len(batch) for batch in classifier.batches} == {min(size, most)}
    assert all(len(set(batch)) == 1 for batch in classifier.batches)
    ends = np.cumsum(pixels.lengths)
    expected = [
        classifier.probability(pixels.bands[end - length : end], pixels.doy[end - length : end])
        for end, length in zip(ends[chosen], pixels.lengths[chosen], strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_longest_series_is_taken_from_the_dates_not_from_the_window(monkeypatch):
    monkeypatch.setattr(windows, "OBSERVATIONS", 12)
    scene, classifier = scene_of(4, 4, days=4, gaps=0), KnownClassifier()
    scene.values[3] = 0  # no series is as long as there are dates
    part_of(plan_of(KnownImages(scene)), 0, classifier)
    assert {len(batch) for batch in classifier.batches} == {3}


def test_series_are_the_same_wherever_they_stand_among_others():
    pixels = scene_of(6, 6).pixels()
    whole = class_probabilities(KnownClassifier(), pixels, np.ones(len(pixels.lengths), bool), 4)
    half = np.arange(len(pixels.lengths)) % 2 == 0
    part = class_probabilities(KnownClassifier(), some_of(pixels, half), np.ones(half.sum(), bool), 4)
    np.testing.assert_array_equal(part, whole[half])
