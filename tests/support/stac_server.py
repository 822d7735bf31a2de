"""A STAC API on the loopback, over items and GeoTIFFs that a test makes; it can fail in the ways real ones do."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pystac
import rasterio
from rasterio.transform import from_origin

CONFORMS_TO = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
]
GEOJSON = "application/geo+json"
WORLD = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]}


class StacServer(ThreadingHTTPServer):
    """`statuses[path]`: answered before the file is; `truncated`: only so many bytes; `hooks`: called first."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.folder, self.page = folder, 100
        self.items: dict[str, list[dict]] = defaultdict(list)
        self.statuses: dict[str, list[int]] = defaultdict(list)
        self.truncated: dict[str, int] = {}
        self.hooks: dict[str, Callable[[], None]] = {}
        self.asked: Counter[str] = Counter()  # requests by path
        self.searchable, self.token = True, ""
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that closes early is not news."""

    def add(self, collection: str, item: pystac.Item) -> None:
        """Serve an item."""
        item.collection_id = collection
        self.items[collection].append(item.to_dict(include_self_link=False))

    def write(self, name: str, values: np.ndarray, left: float, top: float, size: float, **profile) -> str:
        """Write a GeoTIFF of one band to serve, and return its address; `colormap` is written to it too."""
        colormap = profile.pop("colormap", None)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {"crs": "EPSG:32614", "dtype": values.dtype, "driver": "GTiff"} | profile
        height, width = values.shape
        profile |= {"transform": from_origin(left, top, size, size), "width": width, "height": height, "count": 1}
        with rasterio.open(path, "w", **profile) as file:
            file.write(values, 1)
            if colormap:
                file.write_colormap(1, colormap)
        return f"{self.url}/files/{name}"


@contextmanager
def serve(folder: Path) -> Iterator[StacServer]:
    """A running server; it serves the files of `folder`."""
    with StacServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Landing page, collections, item search with pages, and files with ranges."""

    server: StacServer

    def do_GET(self):
        path, _, query = self.path.partition("?")
        with self.server.lock:
            self.server.asked[path] += 1
            statuses = self.server.statuses[path]
            status = statuses.pop(0) if statuses else None
        if path in self.server.hooks:
            self.server.hooks[path]()
        if status:
            return self.send_error(status)
        if path.startswith("/files/"):
            return self._file(path, query)
        if path == "/":
            return self._json(self._landing_page())
        collection = path.removeprefix("/collections/")
        if collection in self.server.items:
            extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
            return self._json(pystac.Collection(collection, collection, extent).to_dict())
        self._json({"code": "NotFound", "description": f"no {path}"}, 404)

    do_HEAD = do_GET

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked["/search"] += 1
            statuses = self.server.statuses["/search"]
            status = statuses.pop(0) if statuses else None
        if status:
            return self.send_error(status)
        found = [
            item
            for name in body["collections"]
            for item in self.server.items[name]
            if _touch(item["bbox"], body["bbox"]) and _overlap(item["properties"], body["datetime"])
        ]
        first, size = int(body.get("token", 0)), min(self.server.page, body["limit"])
        page = {"type": "FeatureCollection", "features": found[first : first + size], "links": []}
        if first + size < len(found):
            link = {"rel": "next", "href": f"{self.server.url}/search", "method": "POST", "merge": True}
            page["links"].append(link | {"body": {"token": str(first + size)}})
        self._json(page)

    def _landing_page(self) -> dict:
        page = pystac.Catalog("test", "a catalogue").to_dict()
        links = [{"rel": "self", "href": self.server.url}, {"rel": "root", "href": self.server.url}]
        links.append({"rel": "data", "href": f"{self.server.url}/collections"})
        if self.server.searchable:
            page["conformsTo"] = CONFORMS_TO
            links.append({"rel": "search", "href": f"{self.server.url}/search", "method": "POST", "type": GEOJSON})
        return page | {"links": links}

    def _json(self, content: dict, status: int = 200) -> None:
        self._bytes(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _file(self, path: str, query: str) -> None:
        if self.server.token and query != self.server.token:
            return self.send_error(403)
        file = self.server.folder / path.removeprefix("/files/")
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()[: self.server.truncated.get(path)]
        asked = self.headers["Range"]
        if not asked:
            return self._bytes(content, 200, {"Accept-Ranges": "bytes"})
        first, last = asked.removeprefix("bytes=").split("-")
        first, last = int(first), min(int(last or len(content)), len(content) - 1)
        if first >= len(content):
            return self.send_error(416)
        span = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._bytes(content[first : last + 1], 206, span)

    def _bytes(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Quiet."""


def _touch(one: list[float], other: list[float]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _overlap(properties: dict, interval: str) -> bool:
    first, last = (_time(text) for text in interval.split("/"))
    start = _time(properties["datetime"] or properties["start_datetime"])
    end = _time(properties["datetime"] or properties["end_datetime"])
    return start <= last and end >= first


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
