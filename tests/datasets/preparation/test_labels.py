import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.warp import transform

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.preparation.labels import is_uniform, qualifying, read_labels, read_legend
from tests.conftest import SHARED, needs_shared
from tests.support.imagery import ORIGIN, UTM, write_raster

CDL = SHARED / "rasters" / "cdl" / "2021_30m_cdls.tif"
CONFIDENCE = SHARED / "rasters" / "cdl" / "2021_30m_confidence_layer.tif"
GRID = Grid(UTM, ORIGIN, 30, 30)  # 10 m
LABELS_30 = ORIGIN * Affine.scale(3)  # 30 m, on the same corner


def slow_rule(codes, confidence, min_confidence, uniform, nodata):
    """The rule of the paper, pixel by pixel."""
    height, width = codes.shape
    reach = uniform // 2
    keep = np.zeros(codes.shape, dtype=bool)
    for row in range(height):
        for col in range(width):
            around = [
                (r, c) for r in range(row - reach, row + reach + 1) for c in range(col - reach, col + reach + 1)
            ]  # fmt: skip
            keep[row, col] = (
                all(0 <= r < height and 0 <= c < width and codes[r, c] == codes[row, col] for r, c in around)
                and codes[row, col] not in nodata
                and (confidence is None or confidence[row, col] > min_confidence)
            )
    return keep


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes, st.sampled_from([1, 3, 5]), st.sampled_from([(0,), (0, 2), ()]))
def test_the_rule_is_that_of_the_paper(data, shape, uniform, nodata):
    codes = data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 1, 1, 1, 1, 2])))
    confidence = data.draw(st.none() | arrays(np.uint8, shape, elements=st.sampled_from([94, 95, 96, 100])))
    found = qualifying(codes, confidence, min_confidence=95, uniform=uniform, nodata=nodata)
    assert np.array_equal(found, slow_rule(codes, confidence, 95, uniform, nodata))


@pytest.mark.parametrize("size", [0, 2, -3])
def test_a_neighbourhood_without_a_centre_is_refused(size):
    with pytest.raises(DataError, match=rf"neighbourhood of {size} x {size} pixels; expected an odd number"):
        is_uniform(np.ones((3, 3)), size)


@needs_shared
def test_the_cropland_data_layer_of_kansas_gives_the_counts_that_others_found():
    with rasterio.open(CDL) as raster, rasterio.open(CONFIDENCE) as other:
        codes, confidence = raster.read(1), other.read(1)
        grid = Grid(raster.crs, raster.transform, *raster.shape)
    values, counts = np.unique(codes[qualifying(codes, confidence)], return_counts=True)
    expected = {1: 6524, 4: 5012, 5: 18371, 24: 9516, 26: 1051, 36: 151, 37: 36, 111: 28, 141: 1015, 176: 16771, 236: 9}
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == expected
    assert round(100 * is_uniform(codes, 3)[1:-1, 1:-1].mean(), 2) == 47.63
    labels = read_labels(CDL, CONFIDENCE, grid)
    assert labels.qualifies.sum() == 58_484 == labels.codes.size - sum(labels.filtered.values())
    legend = read_legend(CDL)
    assert legend.colours[1] == (255, 210, 0) and legend.names == {}


def test_only_the_rasters_own_border_is_left_out(tmp_path):
    """Images over the middle of the labels: all label pixels on them qualify, as their neighbours are known."""
    path = write_raster(tmp_path / "labels.tif", np.full((20, 20), 5, np.uint8), LABELS_30)
    middle = Grid(UTM, ORIGIN * Affine.translation(15, 12), 9, 6)  # label rows 4-6, columns 5-6
    labels = read_labels(path, None, middle)
    assert (labels.row, labels.col, labels.codes.shape) == (4, 5, (3, 2)) and labels.qualifies.all()
    whole = read_labels(path, None, Grid(UTM, ORIGIN, 60, 60))
    assert whole.codes.shape == (20, 20) and whole.qualifies.sum() == 18 * 18 and not whole.qualifies[0].any()


def test_each_filter_is_counted(tmp_path):
    codes = np.full((10, 10), 5, np.uint8)
    codes[5, 5], codes[0, 0] = 6, 0
    confidence = np.full((10, 10), 96, np.uint8)
    confidence[2, :5] = 95
    paths = [write_raster(tmp_path / f"{n}.tif", v, LABELS_30) for n, v in (("l", codes), ("c", confidence))]
    labels = read_labels(*paths, GRID)
    assert labels.qualifies.sum() == 64 - 9 - 4 - 1  # inside, less around the 6, less unsure, less next to the 0
    assert labels.filtered == {
        "no label": 1,
        "confidence of 95 or less": 5,
        "3 x 3 neighbourhood not uniform, or at the border": 100 - 1 - 5 - 50,
    }
    assert list(read_labels(paths[0], None, GRID).filtered)[1:] == ["3 x 3 neighbourhood not uniform, or at the border"]


def test_the_no_data_value_of_the_raster_is_no_label(tmp_path):
    path = write_raster(tmp_path / "labels.tif", np.full((10, 10), 250, np.uint8), LABELS_30, nodata=250)
    assert not read_labels(path, None, GRID).qualifies.any()


def test_codes_may_be_stored_as_floats_if_they_are_whole(tmp_path):
    codes = np.full((10, 10), 5, np.float32)
    codes[0, 0] = np.nan
    path = write_raster(tmp_path / "labels.tif", codes, LABELS_30)
    assert read_labels(path, None, GRID).codes[3, 3] == 5
    codes[3, 3] = 5.5
    write_raster(path, codes, LABELS_30)
    with pytest.raises(DataError, match="labels.tif: holds 5.5; expected class codes, which are whole numbers"):
        read_labels(path, None, GRID)


def test_what_a_label_raster_must_have_is_said(tmp_path):
    codes = np.ones((10, 10), np.uint8)
    nowhere = write_raster(tmp_path / "nowhere.tif", codes, LABELS_30, crs=None)
    two = write_raster(tmp_path / "two.tif", np.stack([codes, codes]), LABELS_30)
    far = write_raster(tmp_path / "far.tif", codes, LABELS_30 * Affine.translation(50, 0))
    good = write_raster(tmp_path / "good.tif", codes, LABELS_30)
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    for path, message in (
        (nowhere, "nowhere.tif: has no CRS"),
        (two, "two.tif: has 2 bands; expected one"),
        (far, "far.tif: no overlap with the images; it covers x 601500 to 601800, .* the images x 600000 to 600300"),
        (text, "text.tif: cannot be read as a raster"),
        (tmp_path / "absent.tif", "absent.tif: no such file"),
    ):
        with pytest.raises(DataError, match=message):
            read_labels(path, None, GRID)
    with pytest.raises(DataError, match="far.tif: 10 x 10 pixels, .* expected the grid of .*good.tif: 10 x 10"):
        read_labels(good, far, GRID)


def test_a_truncated_label_raster_is_named(tmp_path):
    path = write_raster(tmp_path / "labels.tif", np.random.default_rng(0).integers(1, 9, (600, 600), np.uint8), ORIGIN)
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(DataError, match="labels.tif: cannot be read, truncated perhaps"):
        read_labels(path, None, Grid(UTM, ORIGIN, 600, 600))


def test_labels_in_another_crs_are_read_around_the_images(tmp_path):
    degrees = Affine(0.001, 0, -97, 0, -0.001, 38)
    path = write_raster(tmp_path / "labels.tif", np.ones((200, 200), np.uint8), degrees, CRS.from_epsg(4326))
    x, y = transform(CRS.from_epsg(4326), UTM, [-96.9], [37.9])
    labels = read_labels(path, None, Grid(UTM, Affine(10, 0, x[0], 0, -10, y[0]), 30, 30))
    assert 98 <= labels.row <= 100 and 99 <= labels.col <= 100 and 3 <= labels.codes.shape[1] <= 6


def test_names_and_colours_come_from_palette_category_names_and_attribute_table(tmp_path):
    path = write_raster(tmp_path / "labels.tif", np.ones((10, 10), np.uint8), LABELS_30)
    assert read_legend(path) == ({}, {})
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {1: (10, 20, 30, 255)})
    sidecar = tmp_path / "labels.tif.aux.xml"
    names = "<CategoryNames><Category/><Category>Corn</Category></CategoryNames>"
    table = """<GDALRasterAttributeTable><FieldDefn index="0"><Name>VALUE</Name><Usage>0</Usage></FieldDefn>
      <FieldDefn index="1"><Name>CLASS_NAME</Name><Usage>0</Usage></FieldDefn>
      <FieldDefn index="2"><Name>r</Name><Usage>6</Usage></FieldDefn>
      <FieldDefn index="3"><Name>g</Name><Usage>7</Usage></FieldDefn>
      <FieldDefn index="4"><Name>b</Name><Usage>8</Usage></FieldDefn>
      <Row index="0"><F>300</F><F>Rice</F><F>1</F><F>2</F><F>3</F></Row>
      <Row index="1"><F>1</F><F>Maize</F><F>9</F><F>9</F><F>9</F></Row></GDALRasterAttributeTable>"""
    sidecar.write_text(f'<PAMDataset><PAMRasterBand band="1">{names}{table}</PAMRasterBand></PAMDataset>')
    legend = read_legend(path)
    assert legend.names == {1: "Corn", 300: "Rice"}
    assert legend.colours[1] == (10, 20, 30) and legend.colours[300] == (1, 2, 3)
    sidecar.write_text("<PAMDataset>")
    with pytest.raises(DataError, match="labels.tif.aux.xml: cannot be read as XML"):
        read_legend(path)
