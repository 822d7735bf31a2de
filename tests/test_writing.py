"""Every file is written by utils/files.py, whole or not at all: the source is searched for writes of any other way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for path in REPOSITORY.rglob("*.py")
    if not {"tests", "shared"} & set(path.relative_to(REPOSITORY).parts)
    and not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
)
# Calls that write a file, and where its name stands: before the dot, or the number of the argument.
WRITERS = {
    "write_text": "object", "write_bytes": "object", "touch": "object", "savefig": 0, "to_csv": 0, "to_parquet": 0,
    "to_file": 0, "to_json": 0, "to_netcdf": 0, "to_zarr": 0, "tofile": 0, "save": 0, "savez": 0,
    "savez_compressed": 0, "savetxt": 0, "open_memmap": 0, "memmap": 0, "imsave": 0, "write_dataframe": 1,
    "ParquetWriter": 0, "new_file": 0, "FileIO": 0, "NamedTemporaryFile": None, "mkstemp": None, "SummaryWriter": None,
    "dump": 1, "copy": 1, "copyfile": 1, "copytree": 1, "move": 1,
}  # fmt: skip
OURS = {"write_text", "write_bytes", "write_csv", "write_array", "save"}  # plain functions of these names are ours
OPENERS = {"rasterio", "os", "gzip", "io"}  # whose open takes a path
MODULES = {"np", "torch", "json", "pickle", "shutil", "io"}
OF_MODULES = {"save", "dump", "copy", "copyfile", "copytree", "move"}  # which write where they are of one of these
WHOLE = {"atomic_write", "atomic_folder", "TemporaryDirectory", "_new_folder"}  # with … as NAME: to be written to
BUFFERS = {"BytesIO", "StringIO"}
ALLOWED = {  # the function, and why it writes without utils/files.py
    "utils/locks.py:acquire": "a lock file is no content",
    "utils/runtime/limited.py:call": "to a pipe",
    "utils/runtime/limited.py:serve": "to a pipe",
    "utils/results/tensorboard.py:Scalars.__init__": "grows as events come; its last record may be cut off",
    "datasets/download.py:_transfer": "a .part file, from which a broken transfer resumes; verified and then renamed",
    "datasets/npyfile.py:NpyAppender.__init__": "in the folder of a StoreWriter, which is atomic",
    "datasets/writer.py:StoreWriter.__enter__": "in the folder of a StoreWriter, which is atomic",
    "datasets/writer.py:StoreWriter._append_index": "in the folder of a StoreWriter, which is atomic",
    "datasets/writer.py:StoreWriter._finish": "in the folder of a StoreWriter, which is atomic",
    "datasets/preparation/extract.py:write_part": "parts of an interrupted run, renamed and with a checksum",
    "datasets/preparation/root.py:add_years": "the mark that ROOT/.adding is complete",
    "datasets/readers/table_scan.py:_deal_rows": "scratch files in a temporary folder",
    "datasets/simulation/scene.py:write_labels": "in a scene's folder, which is atomic",
    "datasets/simulation/scene.py:write_truth": "in a scene's folder, which is atomic",
    "datasets/simulation/scene.py:write_polygons": "in a scene's folder, which is atomic",
    "datasets/simulation/scene.py:_open_image": "in a scene's folder, which is atomic",
    "mapping/tiff.py:unmark_alpha": "a map before it gets its name",
    "mapping/vectors.py:write_vector": "in a temporary folder, from which the files are renamed",
    "mapping/writing.py:_geotiff": "in the folder of the parts; mapping.parts.place gives it its name",
    "tscls/predict.py:_csv": "what table_writer has from atomic_write",
    "tscls/predict.py:_parquet": "what table_writer has from atomic_write",
    "benchmarks/evidence/pretrain.py:train": "what a run prints, line by line",
    "benchmarks/evidence/runs.py:train": "what a run prints, line by line",
    "benchmarks/prepare.py:*": "input of the measurement, in a temporary folder",
    "benchmarks/store.py:*": "input of the measurement, in a temporary folder",
}


def functions_of(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions and methods by name, and the code outside of them."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                yield f"{node.name}.{getattr(method, 'name', '')}", method
        else:
            yield getattr(node, "name", ""), node


def name_of(node: ast.AST | None) -> str:
    """The last name of a call or of a path: 'open' of rasterio.open, 'folder' of folder / 'a.csv'."""
    match node:
        case ast.Call(func=function):
            return name_of(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.BinOp(left=left):
            return name_of(left)
    return ""


def whole_names(function: ast.AST) -> set[str]:
    """Names that stand for a temporary file or folder, or for a buffer."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.withitem) and node.optional_vars:
            context = node.context_expr
            inside = name_of(context) == "ZipFile" and context.args and name_of(context.args[0]) in names
            if inside or name_of(context) in WHOLE:
                names.add(name_of(node.optional_vars))
        if isinstance(node, ast.Assign) and name_of(node.value) in BUFFERS:
            names |= {name_of(target) for target in node.targets}
    return names


def mode_of(call: ast.Call) -> str:
    """The mode in which a call of open opens; '' where it is not said."""
    given = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    constants = [node.value for each in given for node in ast.walk(each) if isinstance(node, ast.Constant)]
    return "".join(text for text in constants if isinstance(text, str) and text and set(text) <= set("rwaxbt+"))


def direct_writes(source: str, where: str) -> list[str]:
    """Where a source writes a file by its final name: 'FILE:FUNCTION', with the line."""
    found = []
    for name, function in functions_of(ast.parse(source)):
        whole = whole_names(function)
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            what, is_method = name_of(call.func), isinstance(call.func, ast.Attribute)
            if what == "open":
                is_path = is_method and name_of(call.func.value) not in OPENERS
                target = call.func.value if is_path else call.args[0] if call.args else None
                writes = set(mode_of(call)) & set("wax+")
            elif what in WRITERS and (is_method or what not in OURS):
                place = 1 if ast.unparse(call.func) == "torch.save" else WRITERS[what]
                target = call.func.value if place == "object" else None
                if isinstance(place, int) and len(call.args) > place:
                    target = call.args[place]
                is_read = what == "memmap" and any(ast.unparse(word) == "mode='r'" for word in call.keywords)
                is_text = what in ("to_csv", "to_json") and (target is None or ast.unparse(target) == "None")
                is_other = what in OF_MODULES and not (is_method and name_of(call.func.value) in MODULES)
                writes = not (is_text or is_other or is_read)  # as classifier.save(path) and array.copy()
            else:
                continue
            if writes and name_of(target) not in whole:
                found.append(f"{where}:{name} line {call.lineno}: {what}")
    return found


def test_all_files_are_written_whole():
    found = []
    for path in SOURCES:
        where = path.relative_to(REPOSITORY).as_posix()
        if where != "utils/files.py":
            found += direct_writes(path.read_text(encoding="utf-8"), where)
    used = {place for place in ALLOWED if any(line.startswith(place.removesuffix("*")) for line in found)}
    assert not [line for line in found if not any(line.startswith(place.removesuffix("*")) for place in ALLOWED)]
    assert used == set(ALLOWED)  # no exception is left that is not needed


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w')", "open(path, mode='ab')", "path.open('w')", "path.open(mode='x')", "open(path, 'r+b')",
        "path.open('ab' if x else 'wb')", "path.write_text('')",
        "path.write_bytes(b'')", "(folder / 'a').write_text('')",
        "table.to_csv(path)",
        "np.save(path, x)", "np.savez(path, x)", "torch.save(x, path)", "figure.savefig(path)", "path.touch()",
        "frame.to_file(path)", "table.to_parquet(path)", "rasterio.open(path, 'w', **profile)", "shutil.copyfile(a, b)",
        "with ZipFile(path, 'w') as archive: archive.open('a', 'w')",
        "json.dump(x, file)", "np.memmap(path, mode='w+')", "SummaryWriter(folder)", "array.tofile(path)",
    ],
)  # fmt: skip
def test_direct_writes_are_found(code):
    assert len(direct_writes(f"def function():\n    {code}\n", "file.py")) == 1


@pytest.mark.parametrize(
    "code",
    [
        "open(path)", "open(path, 'rb')", "path.open()", "Store.open(path)", "rasterio.open(path)",
        "write_text(path, '')",
        "with atomic_write(path) as partial: partial.write_text('')", "np.memmap(path, mode='r')",
        "with atomic_write(path) as partial, ZipFile(partial, 'w') as archive: archive.open('a', 'w')",
        "text = table.to_csv(None, index=False)",
        "with atomic_folder(path) as folder: (folder / 'a').write_text('')", "x = array.copy()", "save(figure, path)",
        "with atomic_write(path) as partial, partial.open('wb') as file: file.write(x)", "classifier.save(path)",
        "buffer = io.BytesIO(); np.save(buffer, x)", "write_csv(path, table)", "with open(path, 'rb') as f: f.read()",
    ],
)  # fmt: skip
def test_reads_and_whole_writes_are_not(code):
    assert direct_writes(f"def function():\n    {code}\n", "file.py") == []
