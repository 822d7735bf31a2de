"""Draws docs/map-in-qgis.png: a map as QGIS shows it, with its legend. Needs the Python of QGIS (Debian: python3-qgis).

QT_QPA_PLATFORM=offscreen python3 docs/map_in_qgis.py map.tif docs/map-in-qgis.png
"""

from __future__ import annotations

import sys

from qgis.core import (
    QgsApplication,
    QgsLayout,
    QgsLayoutExporter,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutItemScaleBar,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLegendStyle,
    QgsProject,
    QgsRasterLayer,
)

SIDE, LEGEND = 120, 56  # millimetres of the map and of the legend beside it


def check(layer: QgsRasterLayer) -> None:
    """QGIS took the style of the map: a palette with names, and a band of confidence that is no opacity."""
    renderer, provider = layer.renderer(), layer.dataProvider()
    assert renderer.type() == "paletted" and renderer.alphaBand() == -1, renderer.type()
    assert [provider.colorInterpretationName(band) for band in (1, 2)] == ["Palette", "Gray"]
    assert all(provider.sourceHasNoDataValue(band) for band in (1, 2))
    for entry in renderer.classes():
        print(f"{entry.value:3.0f}  {entry.color.name()}  {entry.label}")


def draw(layer: QgsRasterLayer, picture: str) -> None:
    """Lay out the layer with its legend and a scale bar."""
    layout = QgsLayout(QgsProject.instance())
    layout.initializeDefaults()
    page = layout.pageCollection().page(0)
    page.setPageSize(QgsLayoutSize(SIDE + LEGEND, SIDE + 4))
    view = QgsLayoutItemMap(layout)
    view.setLayers([layer])
    view.attemptSetSceneRect(page.rect().adjusted(2, 2, -LEGEND, -2))
    view.setExtent(layer.extent())
    layout.addLayoutItem(view)
    legend, bar = QgsLayoutItemLegend(layout), QgsLayoutItemScaleBar(layout)
    legend.setLinkedMap(view)
    for style in (QgsLegendStyle.Title, QgsLegendStyle.Subgroup, QgsLegendStyle.SymbolLabel):
        font = legend.styleFont(style)
        font.setPointSize(8)
        legend.setStyleFont(style, font)
    legend.rstyle(QgsLegendStyle.Symbol).setMargin(QgsLegendStyle.Top, 1.8)
    legend.setSymbolHeight(3)
    legend.setSymbolWidth(5)
    bar.setLinkedMap(view)
    bar.applyDefaultSize()
    bar.setUnitsPerSegment(500)
    bar.setFont(legend.styleFont(QgsLegendStyle.SymbolLabel))
    bar.setBackgroundEnabled(True)
    for item, place in ((legend, (SIDE + 3, 1)), (bar, (4, SIDE - 14))):
        layout.addLayoutItem(item)
        item.attemptMove(QgsLayoutPoint(*place))
    settings = QgsLayoutExporter.ImageExportSettings()
    settings.dpi = 150
    assert QgsLayoutExporter(layout).exportToImage(picture, settings) == QgsLayoutExporter.Success


def main() -> None:
    application = QgsApplication([], False)
    application.initQgis()
    layer = QgsRasterLayer(sys.argv[1], "map.tif")
    QgsProject.instance().addMapLayer(layer)
    check(layer)
    draw(layer, sys.argv[2])
    application.exitQgis()


if __name__ == "__main__":
    main()
