"""Class maps: read as published, written back the same, and refused when they cannot be right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datasets.classmap import CDL20, ClassMap, read_classmap, write_classmap
from datasets.errors import DataError
from tests.conftest import SHARED, needs_shared

HEADER = "id,classname,code,Red,Green,Blue\n"


def test_cdl20_has_twenty_classes_and_other():
    assert CDL20.num_classes == 21
    assert CDL20.names[0] == "Grass/Pasture" and CDL20.codes[19] == 22
    assert (CDL20.names[-1], CDL20.codes[-1]) == ("Other", 0)


def test_codes_outside_the_map_are_other():
    np.testing.assert_array_equal(CDL20.label_of([[176, 5], [22, 0]]), [[0, 1], [19, 20]])
    np.testing.assert_array_equal(CDL20.label_of([254, -1, 1, 190]), [20, 20, 2, 6])
    np.testing.assert_array_equal(CDL20.label_of(CDL20.codes), np.arange(21))
    assert CDL20.label_of(5) == 1


def test_a_map_is_read_as_it_was_written(tmp_path):
    write_classmap(tmp_path / "map.csv", CDL20)
    assert (tmp_path / "map.csv").read_bytes().startswith(b"\xef\xbb\xbf,id,classname")
    assert read_classmap(tmp_path / "map.csv") == CDL20
    assert ClassMap.from_dict(json.loads(json.dumps(CDL20.as_dict()))) == CDL20


def test_the_published_spelling_is_read(tmp_path):
    """BOM, blanks around names, an unnamed column, other case and order, rows in any order."""
    text = "\ufeff, Classname ,ID,code,extra, red,green,Blue\n1, Corn,1,5,x,1,2,3\n2, Rye ,0,7,y,4,5,6\n"
    (tmp_path / "map.csv").write_text(text, encoding="utf-8")
    assert read_classmap(tmp_path / "map.csv") == ClassMap.of([("Rye", 7, (4, 5, 6)), ("Corn", 5, (1, 2, 3))])


@needs_shared
def test_the_published_file_is_read():
    assert read_classmap(SHARED / "us-toy" / "classmapping20.csv") == CDL20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,classname,Red,Green,Blue\n0,Corn,1,2,3\n", "no column 'code'; expected id, classname, code"),
        (HEADER, "no classes"),
        ("", "cannot be read as CSV"),
        (HEADER + "0,Corn,1,1,2,3\n0,Rye,2,1,2,3\n", "line 3: id 0 appears again; expected every id once"),
        (HEADER + "0,Corn,1,1,2,3\n1,Rye,1,1,2,3\n", "line 3: code 1 appears again"),
        (HEADER + "0,Corn,1,1,2,3\n1,Rye,2,1,,3\n", "line 3: Green is blank; expected a whole number from 0 to 255"),
        (HEADER + "0,Corn,1,1,2,3\n1,Rye,2,1\n", "line 3: Green is blank"),
        (HEADER + "0,Corn,1,1,2,3\n1, ,2,1,2,3\n", "line 3: classname is blank; expected the name of a class"),
        (HEADER.lower() + "\n\n0,Corn,1.5,1,2,3\n", "line 4: code is '1.5'; expected a whole number, 1 or more"),
        (HEADER + "0,Corn,1,1,2,3,4\n", "line 2 has more cells than line 1 has column names"),
        (HEADER + "1,Corn,1,1,2,3\n", "line 2: id is '1'; expected a whole number from 0 to 0"),
        (HEADER + "0,Corn,x,1,2,3\n", "line 2: code is 'x'; expected a whole number, 1 or more"),
        (HEADER + "0,Corn,0,1,2,3\n", "line 2: code is '0'"),
        (HEADER + "0,Corn,1,1,256,3\n", "line 2: Green is '256'; expected a whole number from 0 to 255"),
    ],
)
def test_bad_maps_are_refused(tmp_path, text, words):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_classmap(tmp_path / "map.csv")
    assert str(tmp_path / "map.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_map_is_refused(tmp_path):
    with pytest.raises(DataError, match="map.csv: no such file"):
        read_classmap(tmp_path / "map.csv")
