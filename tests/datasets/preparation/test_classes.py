import numpy as np
import pytest

from datasets.classmap import CDL20, OTHER_NAME, ClassMap, write_classmap
from datasets.errors import DataError
from datasets.preparation.classes import check_known, choose_classmap, frequent, label_of
from datasets.preparation.labels import Legend

TWO = ClassMap.of([("Corn", 1, (1, 2, 3)), ("Winter Wheat", 24, (4, 5, 6))])


def test_the_most_frequent_codes_are_classes_with_the_names_and_colours_of_the_legend():
    codes = np.array([7, 7, 7, 9, 9, 3, 3, 5])
    classmap = frequent(codes, 3, Legend({9: "Oats"}, {7: (1, 2, 3)}))
    assert classmap.codes[:-1] == (7, 3, 9) and classmap.names == ("code 7", "code 3", "Oats", OTHER_NAME)
    assert classmap.colours[0] == (1, 2, 3) and classmap.colours[1] != classmap.colours[2]
    assert label_of(codes, classmap).tolist() == [0, 0, 0, 2, 2, 1, 1, 3]


def test_text_labels_are_classes_numbered_by_frequency():
    labels = np.array(["b", "a", "b"])
    classmap = frequent(labels, 20)
    assert classmap.names == ("b", "a", OTHER_NAME) and classmap.codes == (1, 2, 0)
    assert label_of(labels, classmap).tolist() == [0, 1, 0]


def test_text_is_a_name_in_any_case_or_a_code_written_out():
    labels = np.array(["corn", " WINTER wheat", "24", "2", "Other"])
    assert label_of(labels, TWO).tolist() == [0, 1, 1, 2, 2]


def test_the_class_map_is_that_of_the_root_or_of_cdl_unless_another_is_chosen(tmp_path):
    def chosen(choice, labels):
        return choose_classmap(choice, tmp_path, np.array(labels))[0]

    assert chosen(None, [1, 2]) == CDL20 and chosen(None, ["corn", "x"]) == CDL20
    assert chosen(None, ["x", "y", "y"]).names[:2] == ("y", "x")
    assert chosen("auto", [4, 4, 8]).codes[:2] == (4, 8)
    write_classmap(tmp_path / "classmapping2.csv", TWO)
    assert chosen(None, [1, 2]) == TWO and chosen("auto", [4, 4, 8]).codes[:2] == (4, 8)
    assert chosen(str(tmp_path / "classmapping2.csv"), [5]) == TWO
    write_classmap(tmp_path / "classmapping20.csv", CDL20)
    with pytest.raises(DataError, match="has several class maps; choose one with --classes"):
        chosen(None, [1])
    with pytest.raises(DataError, match="--top 0"):
        frequent(np.array([1]), 0)


def test_unknown_labels_are_named_most_frequent_first(tmp_path):
    labels = np.array([*range(100, 112), 7, 7])
    with pytest.raises(DataError, match=r"map: 7 \(2\), 100 \(1\), .*, 108 \(1\) and 3 more; add them"):
        check_known(labels, label_of(labels, TWO), TWO, tmp_path)
    check_known(np.array([1, 24]), np.array([0, 1]), TWO, tmp_path)
