"""Where the names and colours of a map's classes come from."""

import json

import pytest
import rasterio

from datasets.classmap import CDL20, write_classmap
from datasets.errors import DataError
from mapping.legend import Entry, completed, other_of, read_legend
from tests.support.maps import LEGEND, write_map

CODES = [[1, 5], [24, 0]]
PAM = """<PAMDataset>
  <PAMRasterBand band="2"><CategoryNames><Category>no</Category></CategoryNames></PAMRasterBand>
  <PAMRasterBand band="1"><CategoryNames>
    <Category></Category><Category> Maize </Category><Category/><Category>Rice</Category>
  </CategoryNames></PAMRasterBand>
</PAMDataset>"""


def as_bytes(path, codes=CODES, **options):
    import numpy as np

    return write_map(path, np.array(codes, np.uint8), **options)


def with_palette(path, colours):
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colours)


def test_the_tag_gives_back_what_was_written(tmp_path):
    assert read_legend(as_bytes(tmp_path / "map.tif")) == list(LEGEND)


def test_names_with_any_letters_survive_the_tag(tmp_path):
    legend = [Entry(7, 'Blé d\'hiver "dur" 小麦', None, None)]
    assert read_legend(as_bytes(tmp_path / "map.tif", legend=legend)) == legend


def test_without_a_tag_the_category_names_of_band_1_count_and_the_palette_gives_colours(tmp_path):
    path = as_bytes(tmp_path / "map.tif", legend=None)
    with_palette(path, {1: (1, 2, 3, 255), 3: (4, 5, 6, 255)})
    path.with_name("map.tif.aux.xml").write_text(PAM)
    assert read_legend(path) == [Entry(1, "Maize", (1, 2, 3), None), Entry(3, "Rice", (4, 5, 6), None)]


def test_the_tag_counts_before_the_category_names_and_its_colours_before_the_palette(tmp_path):
    path = as_bytes(tmp_path / "map.tif", legend=[Entry(1, "Corn", (9, 9, 9)), Entry(5, "Beans")])
    with_palette(path, {1: (1, 2, 3, 255), 5: (4, 5, 6, 255)})
    path.with_name("map.tif.aux.xml").write_text(PAM)
    assert read_legend(path) == [Entry(1, "Corn", (9, 9, 9)), Entry(5, "Beans", (4, 5, 6))]


def test_a_class_map_counts_before_what_the_map_says(tmp_path):
    write_classmap(tmp_path / "classes.csv", CDL20)
    found = read_legend(as_bytes(tmp_path / "map.tif"), tmp_path / "classes.csv")
    assert found[2] == Entry(1, "Corn", (255, 212, 0), 2)
    assert found[-1] == Entry(0, "Other", (128, 128, 128), 20) and len(found) == 21


def test_a_map_that_names_nothing_has_no_legend(tmp_path):
    assert read_legend(as_bytes(tmp_path / "map.tif", legend=None)) == []


def test_codes_without_an_entry_are_named_by_their_number_behind_the_others():
    assert completed(LEGEND[:1], [300, 1, 7, 7]) == [LEGEND[0], Entry(7, "7"), Entry(300, "300")]


def test_other_is_the_class_of_that_name_with_code_0():
    assert other_of(LEGEND) == LEGEND[3]
    assert other_of([Entry(0, "Background"), Entry(9, "Other")]) is None


@pytest.mark.parametrize(
    "tag",
    ["nothing", "{}x", "[1]", '[{"code": 1}]', '[{"code": "a", "name": "b"}]', '[{"code":1,"name":"a","colour":[1]}]'],
)
def test_a_tag_of_another_form_is_refused(tmp_path, tag):
    path = as_bytes(tmp_path / "map.tif", legend=None)
    with rasterio.open(path, "r+") as file:
        file.update_tags(CLASSES=tag)
    with pytest.raises(DataError, match="map.tif: its tag CLASSES cannot be read .* --classes FILE"):
        read_legend(path)


def test_a_code_that_appears_twice_is_refused(tmp_path):
    path = as_bytes(tmp_path / "map.tif", legend=None)
    with rasterio.open(path, "r+") as file:
        file.update_tags(CLASSES=json.dumps([{"code": code, "name": "a"} for code in (3, 4, 4)]))
    with pytest.raises(DataError, match="has the code 4 twice"):
        read_legend(path)


def test_a_broken_aux_xml_is_refused(tmp_path):
    path = as_bytes(tmp_path / "map.tif", legend=None)
    path.with_name("map.tif.aux.xml").write_text("<PAMDataset>")
    with pytest.raises(DataError, match="map.tif.aux.xml: cannot be read as XML"):
        read_legend(path)
