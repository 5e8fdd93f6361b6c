"""From a path to the reader of what lies there: .npz, .csv, IDX files, folders of .npy arrays or pictures."""

from __future__ import annotations

from pathlib import Path

from fanin.datasets.arrays import Dataset
from fanin.datasets.idx import find_idx, load_folder, load_pair
from fanin.datasets.npy import find_npy, load_npy, named_as_data
from fanin.datasets.npz import load_npz
from fanin.datasets.pictures import load_pictures
from fanin.datasets.table import load_csv
from fanin.datasets.unpack import require_file
from fanin.errors import DataError

_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


def looks_like_path(spec: str) -> bool:
    """Whether a spec can only mean a file: it has a separator, a comma, or a known ending."""
    return any(mark in spec for mark in "/\\,~") or spec.lower().endswith((".npz", ".npy", *_CSV, "ubyte", ".gz"))


def load_path(spec: str, folder: Path | None = None) -> Dataset:
    """The data set at a path; a relative path that does not exist here is looked for in `folder`."""
    path = _resolved(spec, folder)
    if "," in spec and not path.exists():
        return _load_two(spec, folder)
    if path.is_dir():
        return _load_folder(path)
    require_file(path)
    lower = path.name.lower()
    if lower.endswith(".npz"):
        return load_npz(path)
    if lower.endswith(_CSV):
        return load_csv(path)
    if lower.endswith(".npy"):
        raise DataError(
            f"{path}: expected inputs and labels, given a single array; "
            f"give the folder that holds x_train.npy, y_train.npy, x_test.npy and y_test.npy, such as {path.parent}"
        )
    raise DataError(
        f"{path}: expected a .npz or .csv(.gz) file, a folder, or 'images,labels' (two IDX files), "
        f"given a file ending in {''.join(path.suffixes) or 'nothing'}; rename it or convert it"
    )


def _load_folder(folder: Path) -> Dataset:
    if found := find_idx(folder):
        return load_folder(folder, found)
    files = find_npy(folder)
    has_classes = any(entry.is_dir() for entry in folder.iterdir())  # a stray array among pictures is not the data
    if files and (named_as_data(folder, files) or not has_classes):
        return load_npy(folder, files)
    return load_pictures(folder)


def _load_two(spec: str, folder: Path | None) -> Dataset:
    halves = [half.strip() for half in spec.split(",")]
    if len(halves) != 2 or not all(halves):
        raise DataError(f"{spec!r}: expected two IDX files, 'images,labels', given {len(halves)} parts")
    return load_pair(*(_resolved(half, folder) for half in halves))


def _resolved(spec: str, folder: Path | None) -> Path:
    try:
        path = Path(spec).expanduser()
    except RuntimeError as error:
        raise DataError(f"{spec!r}: {error}; write the whole path") from error
    if folder is not None and not path.exists() and (folder / path).exists():
        return folder / path
    return path
