"""The ten Sentinel-2 Level-2A bands of a series, and the constants of the published method.

Means and standard deviations are of surface reflectance over the US pre-training data
(Xu et al. 2024, ISPRS J. Photogramm. Remote Sens. 207, the data section).
"""

import numpy as np

BANDS = ("blue", "green", "red", "red1", "red2", "red3", "nir", "red4", "swir1", "swir2")  # B2-B8, B8A, B11, B12
BLUE, GREEN, RED, NIR, SWIR1, SWIR2 = 0, 1, 2, 6, 8, 9

MEAN = np.array([0.147, 0.169, 0.186, 0.221, 0.273, 0.297, 0.308, 0.316, 0.256, 0.188], dtype=np.float32)
STD = np.array([0.227, 0.219, 0.222, 0.220, 0.200, 0.193, 0.192, 0.182, 0.123, 0.106], dtype=np.float32)

DN_SCALE = 1e-4  # reflectance of one digital number
MAX_DOY = 366  # day of year runs 1..366; 0 is padding

CLOUD_BRIGHTNESS = 0.32  # blue + green + red above this is cloud, i.e. (b + g + r - 0.2) / 0.6 > 0.2
DARK_BRIGHTNESS = 0.35  # nir + swir1 + swir2 below this is shadow or water


def normalisation() -> dict:
    """What turns digital numbers into model input, as plain values for a checkpoint: (DN * scale - mean) / std."""
    return {"bands": list(BANDS), "scale": DN_SCALE, "mean": MEAN.tolist(), "std": STD.tolist()}
