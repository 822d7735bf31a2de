"""XML of files that may come from anybody: no entities, no document types, no more than a few megabytes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

LARGEST = 16 << 20  # bytes; the list of sources of a virtual raster of ten thousand files is a fifth of it


def parse_xml(path: Path) -> ElementTree.Element:
    """The root element of a UTF-8 file; ValueError for anything that is not plain XML."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"is larger than {LARGEST >> 20} MiB")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "<!ENTITY" in text or "<!DOCTYPE" in text:
            raise ValueError("declares XML entities or a document type")
        return ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, RecursionError) as error:
        raise ValueError(f"is no XML ({error})") from None
