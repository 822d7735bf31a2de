"""Names of run folders, as published."""

from __future__ import annotations

import pytest

from utils.results.naming import join_name, pretraining_name, training_name

PRETRAINING = {"num": None, "seed": 111, "rc": True, "year": 2019, "use_doy": True, "suffix": None}
TRAINING = {"num": 3000, "seed": 111, "length_method": "rc", "year": 2019}
CHECKPOINT = "checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "P_MoCoV2TransformerModel_RC_2019_doy"),
        ({"rc": False, "use_doy": False}, "P_MoCoV2TransformerModel_Pad_2019"),
        ({"num": 3000}, "P_MoCoV2TransformerModel_R3000_RC_2019_Seed111_doy"),
        ({"num": 50, "seed": 7, "use_doy": False}, "P_MoCoV2TransformerModel_R50_RC_2019_Seed7"),
        ({"year": 2021, "suffix": "long"}, "P_MoCoV2TransformerModel_RC_2021_doy_long"),
    ],
)
def test_a_pretraining_run_is_named_by_its_options(given, name):
    assert pretraining_name("MoCoV2TransformerModel", **{**PRETRAINING, **given}) == name


@pytest.mark.parametrize(
    ("given", "method", "name"),
    [
        ({}, "rc", "T_STNet_R3000_RC_2019_Seed111"),
        ({}, "pad", "T_STNet_R3000_Pad_2019_Seed111"),
        ({}, "interp", "T_STNet_R3000_Int_2019_Seed111"),
        ({"num": None}, "rc", "T_STNet_RC_2019_Seed111"),
        ({"pretrained": CHECKPOINT}, "rc", "F_TR_STNet_R3000_RC_2019_Seed111"),
        (
            {"pretrained": "results/P_MoCoV2TransformerModel_RC_2019_doy/model_best.pth", "num": 200},
            "rc",
            "F_Mo_STNet_R200_RC_2019_Seed111",
        ),
        (
            {"pretrained": "results/P_MoCoV2+LabelsSTNet_RC_2019/model_best.pth"},
            "rc",
            "F_Mo+La_STNet_R3000_RC_2019_Seed111",
        ),
        ({"pretrained": "elsewhere/mine/model.pth"}, "rc", "F_mi_STNet_R3000_RC_2019_Seed111"),
        ({"pretrained": CHECKPOINT, "freeze": True}, "rc", "F_TR_STNet_R3000_RC_2019_Seed111_frozen"),
        ({"use_doy": True}, "rc", "T_STNet_R3000_RC_2019_Seed111_doy"),
        ({"regions": ["Adams", "Harvey"]}, "rc", "T_STNet_R3000_RC_2019_Seed111_Adams+Harvey"),
        ({"leave_out": "Adams", "suffix": "x"}, "rc", "T_STNet_R3000_RC_2019_Seed111_withoutAdams_x"),
        ({"until_doy": 150, "freeze": True, "suffix": "x"}, "rc", "T_STNet_R3000_RC_2019_Seed111_frozen_D150_x"),
    ],
)
def test_a_training_run_is_named_by_its_options(given, method, name):
    assert training_name("STNet", **{**TRAINING, "length_method": method, **given}) == name


def test_a_checkpoint_given_without_a_folder_has_the_working_directory_in_its_name(tmp_path, monkeypatch):
    (tmp_path / "MoCoV2_TRSF_doy").mkdir()
    monkeypatch.chdir(tmp_path / "MoCoV2_TRSF_doy")
    assert training_name("STNet", **TRAINING, pretrained="model_best.pth").startswith("F_TR_STNet_")


def test_missing_parts_leave_no_trace():
    assert join_name("a", None, 3, "", "b") == "a_3_b" and join_name() == ""


def test_sites_with_separators_stay_one_folder():
    name = training_name("STNet", **TRAINING, regions=["New York/NY", "a:b"], leave_out="c\\d")
    assert name == "T_STNet_R3000_RC_2019_Seed111_New York-NY+a-b_withoutc-d"
