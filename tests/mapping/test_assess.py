"""The command on small maps whose error matrix can be counted by hand."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.warp import transform as warp_points

from mapping import codes as codes_module
from mapping import pictures
from mapping.areas import assess as figures_of
from mapping.assess import main, result_of
from mapping.codes import open_map
from mapping.reference import Classes, compare_raster, matrix_of
from tests.support.maps import LEGEND, NONE, ORIGIN, UTM, centre, pixel_box, refused, write_features, write_map
from utils.results import figures

RNG = np.random.default_rng(0)
CODES = RNG.choice(np.array([1, 5, 24, 0], np.uint8), (40, 50), p=[0.5, 0.3, 0.1, 0.1])
CODES[:2, :10] = NONE
TRUTH = np.where(RNG.random(CODES.shape) < 0.8, CODES, RNG.choice(np.array([1, 5, 24, 111], np.uint8), CODES.shape))
TRUTH[TRUTH == 0] = 63  # what the map calls Other has codes of its own
TRUTH[TRUTH == NONE] = 1
TRUTH[30:, :5] = 0  # no label
CONFIDENCE = RNG.integers(30, 101, CODES.shape).astype(np.uint8)
NAMES = ["Corn", "Soybeans", "Winter Wheat", "Other"]
ORDER = [1, 5, 24, 0]


def matrix_by_hand(keep=True, truth=TRUTH):
    """Rows map, columns reference, in plain loops; codes that the map does not name are Other."""
    matrix = np.zeros((4, 4), int)
    keep = np.broadcast_to(keep, CODES.shape)
    for mapped, true, kept in zip(CODES.flat, truth.flat, keep.flat, strict=True):
        if mapped != NONE and true != 0 and kept:
            matrix[ORDER.index(mapped), ORDER.index(true if true in ORDER else 0)] += 1
    return matrix


@pytest.fixture(autouse=True)
def small_windows(monkeypatch, request):
    monkeypatch.setattr(codes_module, "WINDOW", 16)
    if "drawn" not in request.fixturenames:  # pictures take most of the time of a small run
        monkeypatch.setattr(figures, "available", lambda: False)


@pytest.fixture
def drawn():
    """For tests that need the pictures."""


@pytest.fixture
def place(tmp_path):
    write_map(tmp_path / "map.tif", CODES, CONFIDENCE)
    write_map(tmp_path / "truth.tif", TRUTH, nodata=None, legend=None)
    return tmp_path


def run(place, *words, truth=("--reference", "truth.tif")):
    words = [*truth, *words]
    paths = [place / word if str(word).endswith((".tif", ".gpkg", ".csv")) else word for word in words]
    main([str(word) for word in ("--map", place / "map.tif", "--out", place / "out", *paths)])
    out = place / "out"
    matrix = pd.read_csv(out / "matrix.csv")
    assert matrix["map"].tolist() == list(matrix)[1:]
    overall = json.loads((out / "overall.json").read_text())
    return pd.read_csv(out / "classes.csv"), matrix.iloc[:, 1:].to_numpy(), overall


def test_a_reference_raster_is_compared_pixel_by_pixel(place, capsys):
    classes, matrix, overall = run(place)
    expected = matrix_by_hand()
    np.testing.assert_array_equal(matrix, expected)
    assert classes["name"].tolist() == NAMES and classes["code"].tolist() == ORDER
    pixels = np.array([(CODES == code).sum() for code in ORDER])
    figures = figures_of(expected, pixels, pixels * 0.01)
    assert classes["samples"].tolist() == expected.sum(1).tolist()
    assert classes["pixels"].tolist() == pixels.tolist()
    for column, values in {
        "mapped_ha": pixels * 0.01, "area_ha": figures.area_ha, "area_ci95_ha": figures.area_ci95_ha,
        "users": figures.users, "users_ci95": figures.users_ci95, "producers": figures.producers,
        "producers_ci95": figures.producers_ci95, "f1": figures.f1, "f1_ci95": figures.f1_ci95,
    }.items():  # fmt: skip
        np.testing.assert_allclose(classes[column], values, err_msg=column)
    assert (overall["samples"], overall["pixels"], overall["coverage"]) == (expected.sum(), pixels.sum(), 1)
    for name in ("oa", "oa_ci95", "kappa", "kappa_ci95", "macro_f1"):
        assert overall[name] == pytest.approx(getattr(figures, name))
    assert overall["left_out"] == {"without a class in the map": 20}
    said = capsys.readouterr().out
    assert f"OA {figures.oa:.4f} ± {figures.oa_ci95:.4f}" in said
    assert f"{figures.users[1]:.4f} ± {figures.users_ci95[1]:.4f}" in said
    assert "a census of the overlap" in said and "counted as Other: 63 (" in said


def test_the_windows_do_not_matter(place, monkeypatch):
    one = run(place)
    monkeypatch.setattr(codes_module, "WINDOW", 1024)
    other = run(place)
    pd.testing.assert_frame_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_the_reference_may_have_another_crs_and_grid(place):
    """Each pixel of the map is compared with the pixel of the reference in which its centre lies."""
    west, north = (values[0] for values in warp_points(UTM, "EPSG:5070", [500_000], [4_200_000]))
    transform = Affine(30, 0, west + 37, 0, -30, north - 12) @ Affine.rotation(10)
    truth = RNG.choice(np.array([0, 1, 5, 24, 7], np.uint8), (14, 18))
    write_map(place / "other.tif", truth, crs="EPSG:5070", transform=transform, nodata=None, legend=None)
    _, matrix, _ = run(place, truth=("--reference", "other.tif"))
    near = np.zeros_like(CODES)
    for row, col in np.ndindex(CODES.shape):
        (x,), (y,) = warp_points(UTM, "EPSG:5070", *[[value] for value in ORIGIN @ (col + 0.5, row + 0.5)])
        c, r = (int(np.floor(value)) for value in ~transform @ (x, y))
        near[row, col] = truth[r, c] if 0 <= r < 14 and 0 <= c < 18 else 0
    assert 500 < (near > 0).sum() < 1900
    np.testing.assert_array_equal(matrix, matrix_by_hand(truth=near))


def test_reference_pixels_need_more_than_the_least_confidence(place):
    sure = RNG.integers(90, 101, (20, 25)).astype(np.uint8)
    sure[5] = 255
    write_map(place / "sure.tif", sure, transform=ORIGIN @ Affine.scale(2), legend=None)  # 255: no data
    fine = np.kron(sure, np.ones((2, 2), np.uint8))
    keep = (fine > 95) & (fine != 255)
    _, matrix, overall = run(place, "--confidence", "sure.tif")
    np.testing.assert_array_equal(matrix, matrix_by_hand(keep))
    assert overall["left_out"]["of confidence 95 or less"] == ((TRUTH > 0) & ~keep).sum()
    _, matrix, _ = run(place, "--confidence", "sure.tif", "--min-confidence", 98)
    np.testing.assert_array_equal(matrix, matrix_by_hand((fine > 98) & (fine != 255)))


def test_a_reference_with_a_no_data_value_may_have_a_class_0(place):
    truth = TRUTH.copy()
    truth[0] = 200
    write_map(place / "truth.tif", truth, nodata=200, legend=None)
    _, matrix, _ = run(place)
    expected = matrix_by_hand(np.arange(40)[:, None] > 0)
    expected[:, 3] += [((CODES == code) & (truth == 0)).sum() for code in ORDER]
    np.testing.assert_array_equal(matrix, expected)


def test_without_other_the_codes_that_only_the_reference_has_are_classes_of_their_own(place):
    codes = np.where(CODES == 0, 5, CODES)
    write_map(place / "map.tif", codes, legend=LEGEND[:3])
    classes, matrix, _ = run(place)
    assert classes["name"].tolist() == ["Corn", "Soybeans", "Winter Wheat", "111", "63"]
    assert classes["pixels"].tolist()[3:] == [0, 0] and matrix[3:].sum() == 0 and matrix[:, 3:].sum() > 0
    assert classes["users"].isna().tolist() == [False, False, False, True, True]
    assert classes["producers"].tolist()[3:] == [0, 0]


def test_codes_that_the_map_has_but_does_not_name_are_not_other(place):
    write_map(place / "map.tif", np.where(CODES == 24, 111, CODES))
    classes, matrix, _ = run(place)
    assert classes["name"].tolist() == ["Corn", "Soybeans", "Winter Wheat", "Other", "111"]
    assert matrix[4, 4] == ((CODES == 24) & (TRUTH == 111)).sum() and matrix[2].sum() == 0


def test_a_class_with_fewer_than_two_samples_is_blank_and_said(place, capsys):
    truth = np.where(CODES == 24, 0, TRUTH)
    one = tuple(np.argwhere((CODES == 24) & (TRUTH == 24))[0])
    write_map(place / "truth.tif", truth, nodata=None, legend=None)
    classes, _, overall = run(place)
    figures = ["area_ha", "area_ci95_ha", "users", "users_ci95", "producers", "producers_ci95", "f1"]
    assert classes.loc[2, figures].isna().all() and classes.loc[2, "mapped_ha"] > 0
    assert overall["coverage"] == pytest.approx(1 - (CODES == 24).sum() / (CODES != NONE).sum())
    said = capsys.readouterr().out
    assert re.search(r"Winter Wheat +0 +\d+ +too few samples +too few samples", said)
    assert "No samples in Winter Wheat: OA" in said
    truth[one] = 24
    write_map(place / "truth.tif", truth, nodata=None, legend=None)
    classes, _, _ = run(place)
    assert classes.loc[2, "users"] == 1 and classes.loc[2, ["users_ci95", "area_ci95_ha", "f1_ci95"]].isna().all()
    said = capsys.readouterr().out
    assert "1.0000 (too few samples)" in said and "A single sample in Winter Wheat" in said


def labelled_points(place, labels, extra=()):
    rows, cols = np.divmod(np.arange(0, 2000, 13), 50)
    shapes = [centre(int(row), int(col)) for row, col in zip(rows, cols, strict=True)]
    crops = [labels[code] for code in TRUTH[rows, cols].tolist()] + [label for _, label in extra]
    write_features(place / "points.gpkg", shapes + [shape for shape, _ in extra], crop=crops)
    keep = np.zeros(CODES.shape, bool)
    keep[rows, cols] = True
    return keep


TEXT = {1: "corn", 5: " SOYBEANS ", 24: "24", 63: "Hops", 111: "Open water", 0: None}
NUMBERS = {1: 1.0, 5: 5.0, 24: 24.0, 63: 63.0, 111: 111.0, 0: None}


@pytest.mark.parametrize("labels", [TEXT, NUMBERS], ids=["text", "numbers"])
def test_points_may_be_labelled_by_name_or_code(place, capsys, labels):
    extra = [(shape, labels[1]) for shape in (shapely.Point(0, 0), centre(-1, 3), centre(40, 3), None)]
    keep = labelled_points(place, labels, extra)
    _, matrix, overall = run(place, "--label", "crop", truth=("--points", "points.gpkg"))
    np.testing.assert_array_equal(matrix, matrix_by_hand(keep))
    assert overall["left_out"] == {
        "outside the map": 3, "without a place": 1, "without a label": int((keep & (TRUTH == 0)).sum()),
        "without a class in the map": int((keep & (CODES == NONE)).sum()),
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "3 outside the map" in said and "random sample within each class" in said
    assert ("Hops" if labels is TEXT else "63 (") in said


def test_points_in_another_crs_are_brought_to_the_map(place):
    import geopandas

    keep = labelled_points(place, NUMBERS)
    geopandas.read_file(place / "points.gpkg").to_crs("EPSG:4326").to_file(place / "points.gpkg")
    _, matrix, _ = run(place, "--label", "crop", truth=("--points", "points.gpkg"))
    np.testing.assert_array_equal(matrix, matrix_by_hand(keep))


def test_points_in_one_pixel_are_said(place, capsys):
    points = [centre(10, 10), centre(10, 10), centre(11, 10)]
    write_features(place / "points.gpkg", points, crop=[1, 1, 5])
    _, matrix, _ = run(place, "--label", "crop", truth=("--points", "points.gpkg"))
    assert matrix.sum() == 3 and "1 points lie in the same pixel" in capsys.readouterr().out


def test_labels_that_are_text_and_no_class_of_a_map_without_other_are_classes_without_a_code(place):
    write_map(place / "map.tif", np.where(CODES == 0, 5, CODES), legend=LEGEND[:3])
    points = [centre(10, col) for col in range(20)]
    write_features(place / "points.gpkg", points, crop=["Corn", "Hops", "hops", "Vines"] * 5)
    classes, matrix, _ = run(place, "--label", "crop", truth=("--points", "points.gpkg"))
    assert classes["name"].tolist()[-2:] == ["Hops", "Vines"] and classes["code"].isna().tolist()[-2:] == [True, True]
    assert matrix[:, -2].sum() == 10 and matrix[:, -1].sum() == 5


def test_pixels_in_polygons_are_compared_and_those_of_several_labels_are_not(place, capsys):
    shapes = [pixel_box(0, 0, 20, 20), pixel_box(15, 15, 10, 20), pixel_box(18, 0, 4, 4), pixel_box(30, 30, 2, 2),
              pixel_box(200, 0, 5, 5), None]  # fmt: skip
    write_features(place / "fields.gpkg", shapes, crop=["Corn", "Soybeans", "Corn", None, "Corn", "Corn"])
    _, matrix, overall = run(place, "--label", "crop", truth=("--polygons", "fields.gpkg"))
    corn, beans = np.zeros((2, *CODES.shape), bool)
    corn[:20, :20] = corn[18:22, :4] = beans[15:25, 15:35] = True
    truth = np.where(corn, 1, np.where(beans, 5, 0))
    np.testing.assert_array_equal(matrix, matrix_by_hand(~(corn & beans), truth))
    assert overall["left_out"]["in polygons of several labels"] == 25
    assert overall["left_out"]["polygons without a label"] == 1
    assert "Every pixel with its centre in a polygon is a sample" in capsys.readouterr().out


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3), st.integers(0, 20), st.integers(0, 15), st.booleans())
def test_turned_and_cropped_maps_have_the_error_matrix_of_the_same_pixels(tmp_path_factory, turns, top, left, flip):
    place = tmp_path_factory.mktemp("turned")
    part = np.s_[top : top + 20, left : left + 35]
    transform = ORIGIN @ Affine.translation(left, top)
    codes = CODES[part]
    for _ in range(turns):  # to the left: what was the last column is the first row
        transform = transform @ Affine.translation(codes.shape[1], 0) @ Affine(0, -1, 0, 1, 0, 0)
        codes = np.rot90(codes)
    if flip:
        transform, codes = transform @ Affine.translation(codes.shape[1], 0) @ Affine.scale(-1, 1), codes[:, ::-1]
    write_map(place / "map.tif", codes, transform=transform)
    write_map(place / "truth.tif", TRUTH, nodata=None, legend=None)
    with open_map(place / "map.tif") as source:
        counts = source.count()
        tally = compare_raster(source, place / "truth.tif", Classes(source.legend, counts.codes.tolist()))
    keep = np.zeros(CODES.shape, bool)
    keep[part] = True
    np.testing.assert_array_equal(matrix_of(tally, ORDER), matrix_by_hand(keep))
    assert counts.pixels.tolist() == [(codes == code).sum() for code in sorted(set(codes.flat) - {NONE})]


def test_the_areas_of_a_map_in_degrees_are_those_of_its_rows(tmp_path):
    codes = np.repeat(np.array([[1], [5]], np.uint8), [20, 20], axis=0) * np.ones((1, 10), np.uint8)
    transform = Affine(0.1, 0, -100, 0, -0.1, 60)
    write_map(tmp_path / "map.tif", codes, crs="EPSG:4326", transform=transform)
    with open_map(tmp_path / "map.tif") as source:
        counts = source.count()
    geod = __import__("pyproj").Geod(ellps="WGS84")
    for hectares, north in zip(counts.hectares, (60, 58), strict=True):
        x = np.concatenate([np.linspace(-100, -99, 500), np.linspace(-99, -100, 500)])
        area, _ = geod.polygon_area_perimeter(x, np.repeat([north, north - 2], 500))
        assert hectares == pytest.approx(abs(area) / 10_000, rel=1e-5)
    assert counts.hectares[1] > 1.05 * counts.hectares[0]


def test_the_confidence_of_the_samples_is_counted_by_per_cent(place):
    with open_map(place / "map.tif") as source:
        classes = Classes(source.legend, source.count().codes.tolist())
        tally = compare_raster(source, place / "truth.tif", classes)
        result = result_of(source, source.count(), classes, tally)
    keep = (CODES != NONE) & (TRUTH != 0)
    agrees = keep & (CODES == np.where(np.isin(TRUTH, ORDER), TRUTH, 0))
    np.testing.assert_array_equal(tally.confidence[:, 0], np.bincount(CONFIDENCE[keep], minlength=101))
    np.testing.assert_array_equal(tally.confidence[:, 1], np.bincount(CONFIDENCE[agrees], minlength=101))
    assert result.accuracy.oa == pytest.approx(agrees.sum() / keep.sum(), abs=0.02)


def test_bins_of_confidence_have_their_mean_accuracy_and_number():
    counts = np.zeros((101, 2), np.int64)
    counts[[40, 48, 90, 100]] = [[3, 1], [1, 1], [4, 3], [4, 4]]
    confidence, accuracy, samples = pictures.by_bins(counts)
    np.testing.assert_allclose(confidence, [0.42, 0.95])
    np.testing.assert_allclose(accuracy, [0.5, 7 / 8])
    assert samples.tolist() == [4, 8]


def test_the_report_holds_its_pictures_and_needs_no_other_file(place, drawn):
    run(place)
    found = {file.name for file in (place / "out").iterdir()}
    assert found == {"classes.csv", "matrix.csv", "overall.json", "report.html", "map.png", "matrix.png", "areas.png",
                     "confidence.png"}  # fmt: skip
    text = (place / "out" / "report.html").read_text()
    assert text.count('src="data:image/png;base64,') == 4
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://|url\(|@import|<script|<link""", text)
    assert "Winter Wheat" in text and "a census of the overlap" in text and "truth.tif" in text
    numbers = pd.read_csv(place / "out" / "classes.csv")
    assert f"{numbers['users'][0]:.4f} ± {numbers['users_ci95'][0]:.4f}" in text
    write_map(place / "map.tif", CODES)  # without confidence
    run(place)
    assert not (place / "out" / "confidence.png").exists()
    assert (place / "out" / "report.html").read_text().count("data:image") == 3


def test_names_of_classes_are_text_in_the_report(place):
    legend = [LEGEND[0]._replace(name="<b>Corn & Co</b>"), *LEGEND[1:]]
    write_map(place / "map.tif", CODES, legend=legend)
    run(place)
    text = (place / "out" / "report.html").read_text()
    assert "&lt;b&gt;Corn &amp; Co&lt;/b&gt;" in text and "<b>Corn & Co" not in text


def test_a_picture_shows_the_map_in_the_colours_of_its_classes(place, drawn, monkeypatch):
    with open_map(place / "map.tif") as source:
        classes = Classes(source.legend, source.count().codes.tolist())
        result = result_of(source, source.count(), classes, compare_raster(source, place / "truth.tif", classes))
        image = pictures.painted(source.codes(next(iter(source.grid.windows(64)))), result)
        monkeypatch.setattr(pictures, "SIDE", 10)
        small = pictures.coarse(source.grid)
    for entry in LEGEND:
        assert (image[CODES == entry.code] == entry.colour).all()
    assert (image[CODES == NONE] == 255).all()
    assert (pictures.painted(np.array([[63]]), result) == LEGEND[3].colour).all()
    assert (small.height, small.width) == (8, 10)
    assert small.transform @ (10, 8) == pytest.approx(ORIGIN @ (50, 40))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--reference", "elsewhere.tif"], "elsewhere.tif: no overlap with"),
        (["--reference", "plain.tif"], "plain.tif: has no CRS"),
        (["--reference", "ids.tif"], "none of its codes (77) is a class of the map"),
        (["--reference", "blank.tif"], "blank.tif: nothing to compare with the map"),
        (["--reference", "half.tif"], "half.tif: holds 1.5; expected class codes"),
        (["--reference", "none.tif"], "none.tif: no such file"),
        (["--reference", "cut.tif"], "cut.tif"),
        (["--reference", "truth.tif", "--label", "crop"], "leave them out with --reference"),
        (["--reference", "truth.tif", "--min-confidence", "90"], "--min-confidence needs --confidence"),
        (["--reference", "truth.tif", "--points", "points.gpkg"], "not allowed with"),
        (["--reference", "truth.tif", "--blocks", "."], "no eval split in it"),
        (["--points", "points.gpkg"], "need --label COLUMN"),
        (["--points", "points.gpkg", "--label", "crup"], "points.gpkg: no column 'crup'; it has crop, blank, wrong"),
        (["--points", "points.gpkg", "--label", "geometry"], "no column 'geometry'"),
        (["--points", "points.gpkg", "--label", "blank"], "blank in all 2 features"),
        (["--points", "points.gpkg", "--label", "wrong"], "(Maize, Soya); expected codes or names such as Corn"),
        (["--points", "far.gpkg", "--label", "crop"], "nothing to compare with the map (1 outside the map)"),
        (["--points", "fields.gpkg", "--label", "crop"], "is a Polygon; expected Points; give polygons with"),
        (["--polygons", "points.gpkg", "--label", "crop"], "is a Point; expected Polygons; give points with"),
        (["--points", "points.gpkg", "--label", "crop", "--confidence", "truth.tif"], "is that of --reference"),
        (["--points", "bare.gpkg", "--label", "crop"], "bare.gpkg: has no CRS"),
        ([], "one of the arguments --reference --points --polygons is required"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_cannot_be_assessed_is_refused_in_a_line_and_writes_nothing(place, capsys, words, reason):
    write_map(place / "elsewhere.tif", TRUTH, transform=ORIGIN @ Affine.translation(100, 0))
    write_map(place / "plain.tif", TRUTH, crs=None)
    write_map(place / "ids.tif", np.full((40, 50), 77, np.uint8))
    write_map(place / "blank.tif", np.zeros((40, 50), np.uint8), nodata=None)
    write_map(place / "half.tif", np.full((40, 50), 1.5, np.float32))
    (place / "cut.tif").write_bytes((place / "truth.tif").read_bytes()[:1000])
    columns = {"crop": [1, 5], "blank": [None, " "], "wrong": ["Maize", "Soya"]}
    write_features(place / "points.gpkg", [centre(3, 3), centre(4, 14)], **columns)
    write_features(place / "bare.gpkg", [centre(3, 3)], crs=None, crop=[1])
    write_features(place / "far.gpkg", [centre(300, 3)], crop=[1])
    write_features(place / "fields.gpkg", [pixel_box(3, 3, 2, 2)], crop=[1])
    words = [place / word if word.endswith((".tif", ".gpkg")) or word == "." else word for word in words]
    line = refused(main, ["--map", place / "map.tif", "--out", place / "out", *words], capsys)
    assert reason in line
    assert not (place / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(place, capsys):
    (place / "out").write_text("mine")
    words = ["--map", place / "map.tif", "--reference", place / "truth.tif", "--out", place / "out"]
    assert "out: a file; expected a folder" in refused(main, words, capsys)


def test_areas_in_a_crs_that_distorts_them_are_said(place, capsys):
    transform = Affine(10, 0, -11_000_000, 0, -10, 4_865_942)
    write_map(place / "map.tif", CODES, crs="EPSG:3857", transform=transform)
    write_map(place / "truth.tif", TRUTH, crs="EPSG:3857", transform=transform, nodata=None, legend=None)
    run(place)
    assert re.search(r"plane of EPSG:3857, 1\.7\d? times those on the ground", capsys.readouterr().out)


def test_a_mask_in_the_file_says_where_there_is_no_class(place):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_map(place / "map.tif", np.where(CODES == NONE, 1, CODES), nodata=None)
        with rasterio.open(place / "map.tif", "r+") as file:
            file.write_mask(CODES != NONE)
    _, matrix, _ = run(place)
    np.testing.assert_array_equal(matrix, matrix_by_hand())
