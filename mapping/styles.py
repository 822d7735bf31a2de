"""How a map is shown: palette, category names in the `.aux.xml` beside it (GDAL), and a `.qml` style (QGIS)."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from mapping.legend import Entry

INTEGER, STRING = "0", "2"  # types of a column of GDAL's attribute tables
GENERIC, NAME, MIN_MAX, RED, GREEN, BLUE = "0", "2", "5", "6", "7", "8"  # uses of one


def palette(classes: Sequence[Entry], no_data: int) -> dict[int, tuple[int, int, int, int]]:
    """Red, green, blue, alpha by code; what is no class is transparent."""
    return {no_data: (0, 0, 0, 0), **{one.code: (*one.colour, 255) for one in classes}}


def auxiliary_xml(classes: Sequence[Entry]) -> str:
    """The `.aux.xml` of GDAL: names by code and a table of codes, names and colours of band 1; band 2 is gray."""
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    names = {one.code: one.name for one in classes}
    categories = SubElement(band, "CategoryNames")
    for code in range(max(names) + 1):  # the list has an entry a value
        SubElement(categories, "Category").text = names.get(code, "")
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    columns = [("Value", INTEGER, MIN_MAX), ("Class", STRING, NAME)]
    columns += [("Red", INTEGER, RED), ("Green", INTEGER, GREEN), ("Blue", INTEGER, BLUE)]
    for i, column in enumerate(columns):
        definition = SubElement(table, "FieldDefn", index=str(i))
        for tag, text in zip(("Name", "Type", "Usage"), column, strict=True):
            SubElement(definition, tag).text = text
    for i, one in enumerate(sorted(classes, key=lambda one: one.code)):
        row = SubElement(table, "Row", index=str(i))
        for value in (one.code, one.name, *one.colour):
            SubElement(row, "F").text = str(value)
    SubElement(SubElement(root, "PAMRasterBand", band="2"), "ColorInterp").text = "Gray"
    return _text(root)


def qgis_style(classes: Sequence[Entry]) -> str:
    """The `.qml` of QGIS: a paletted renderer of band 1."""
    root = Element("qgis", styleCategories="AllStyleCategories")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    entries = SubElement(renderer, "colorPalette")
    for one in sorted(classes, key=lambda one: one.code):
        colour = "#" + "".join(f"{value:02x}" for value in one.colour)
        SubElement(entries, "paletteEntry", value=str(one.code), color=colour, label=one.name, alpha="255")
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _text(root)


def _text(root: Element) -> str:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
