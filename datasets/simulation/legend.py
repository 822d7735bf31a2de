"""Name and colour of every code that a scene may hold."""

from __future__ import annotations

from datasets.classmap import CDL20

_GREY = (156, 156, 156)
COVERS = {  # code: (name, colour), of the CDL's legend (USDA NASS); first those that are no class of the class map
    10: ("Peanuts", (112, 168, 0)),
    21: ("Barley", (226, 0, 124)),
    27: ("Rye", (172, 0, 124)),
    28: ("Oats", (160, 89, 137)),
    29: ("Millet", (112, 0, 73)),
    32: ("Flaxseed", (126, 153, 255)),
    41: ("Sugarbeets", (168, 0, 228)),
    42: ("Dry Beans", (165, 0, 0)),
    43: ("Potatoes", (112, 38, 0)),
    51: ("Chick Peas", (0, 175, 75)),
    52: ("Lentils", (0, 222, 176)),
    111: ("Open Water", (75, 112, 163)),
    121: ("Developed/Open Space", _GREY),
    122: ("Developed/Low Intensity", _GREY),
    123: ("Developed/Med Intensity", _GREY),
    124: ("Developed/High Intensity", _GREY),
}
COVERS |= {
    code: (name, colour)
    for name, code, colour in zip(CDL20.names[:-1], CDL20.codes[:-1], CDL20.colours[:-1], strict=True)
}


def palette() -> dict[int, tuple[int, int, int, int]]:
    """Red, green, blue and alpha of each code, for a GeoTIFF; no-data is 0, transparent black."""
    return {0: (0, 0, 0, 0)} | {code: (*colour, 255) for code, (_, colour) in COVERS.items()}
