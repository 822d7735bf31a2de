from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.images import Pixels
from datasets.preparation import extract
from datasets.preparation.samples import Samples
from tests.support.imagery import ORIGIN, UTM


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.tuples(st.integers(1, 12), st.integers(1, 50)), st.integers(0, 99),
    st.integers(0, 9),
)  # fmt: skip
def test_every_sample_is_in_one_window_and_windows_are_no_larger_than_their_samples(height, width, shape, count, seed):
    grid = Grid(UTM, ORIGIN, height, width)
    drawn = np.random.default_rng(seed).choice(height * width, min(count, height * width), replace=False)
    samples = Samples(*np.divmod(drawn, width), {"number": drawn})
    ordered = extract.in_block_order(samples, grid, shape)
    assert sorted(ordered.columns["number"]) == sorted(drawn)
    jobs, place = extract.plan(grid, ordered, shape), 0
    for job in jobs:
        assert job.first == place and job.wanted == len(job.rows) > 0
        assert np.array_equal(job.rows * width + job.cols, ordered.columns["number"][place : place + job.wanted])
        assert (np.diff(job.rows * width + job.cols) > 0).all()
        window = job.window
        assert (window.row_off, window.col_off) == (job.rows.min(), job.cols.min())
        assert (window.height, window.width) == (np.ptp(job.rows) + 1, np.ptp(job.cols) + 1)
        assert len({(row // shape[0], col // shape[1]) for row, col in zip(job.rows, job.cols, strict=True)}) == 1
        place += job.wanted
    assert place == len(samples) and len({job.number for job in jobs}) == len(jobs)
    assert sum(job.wanted for job in extract.plan(grid, None, shape)) == height * width


@pytest.mark.parametrize(
    "block, dates, expected",
    [
        ((256, 256), 70, (256, 256)),
        ((128, 128), 70, (256, 256)),
        ((512, 512), 12, (512, 512)),  # 3.1 million observations
        ((1024, 1024), 70, (256, 256)),  # too many
        ((1, 10_980), 70, (5, 10_980)),
        ((16, 400), 20, (256, 400)),
        ((100, 100), 10, (200, 200)),
    ],
)
def test_windows_are_whole_blocks_of_the_files_within_a_bound(block, dates, expected):
    header = SimpleNamespace(block=block)
    images = SimpleNamespace(headers={"a": header, "b": header}, dates=[date(2019, 1, 1)] * dates,
                             grid=Grid(UTM, ORIGIN, 10_980, 10_980))  # fmt: skip
    assert extract.window_shape(images) == expected
    assert extract.memory_of(images, 2) < 2e9  # a tile in 4 GB


def pixels_of(lengths, row, col):
    total = sum(lengths)
    bands = np.arange(total * 10, dtype=np.int16).reshape(total, 10)
    counts = {"missing": 3, "masked": 4, "clipped": 5}
    return Pixels(bands, np.arange(total, dtype=np.int16), np.array(lengths), np.array(row), np.array(col), counts)


def test_pixels_with_too_few_observations_are_counted_and_the_others_keep_their_series(tmp_path):
    window = SimpleNamespace(row_off=4, col_off=2, height=3, width=4)
    job = extract.Job(7, window, 0, np.array([4, 4, 5, 6]), np.array([2, 5, 3, 2]))
    part = extract.select(pixels_of([2, 1, 3], [4, 5, 6], [5, 3, 2]), job, 100, min_observations=2)
    assert part.position.tolist() == [1, 3] and part.row.tolist() == [4, 6] and part.col.tolist() == [5, 2]
    assert part.lengths.tolist() == [2, 3] and part.doy.tolist() == [0, 1, 3, 4, 5]
    assert part.bands[:, 0].tolist() == [0, 10, 30, 40, 50] and part.counts.tolist() == [1, 1, 3, 4, 5]
    path = extract.write_part(tmp_path, 7, part)
    assert path.name.startswith("0000007-") and [p.name for p in tmp_path.iterdir()] == [path.name]
    for read, array in zip(extract.read_part(path), part, strict=True):
        assert np.array_equal(read, array) and read.dtype == array.dtype
    counts, position = extract.read_outcome(path)
    assert counts.tolist() == part.counts.tolist() and position.tolist() == [1, 3]
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged; run the same command again"):
        extract.read_part(path)
