"""Readers and sources of data: one `load` for named sets, files, folders and code. Plain data, no torch."""

from __future__ import annotations

import warnings
from pathlib import Path

from fanin.code import looks_like_attribute
from fanin.datasets.arrays import Dataset as Dataset
from fanin.datasets.arrays import Split as Split
from fanin.datasets.arrays import check_values as check_values
from fanin.datasets.attribute import load_attribute
from fanin.datasets.digits import load_digits
from fanin.datasets.fetch import Progress as Progress
from fanin.datasets.files import load_path, looks_like_path
from fanin.datasets.mnist import NotFetchedError, load_mnist
from fanin.datasets.shared import open_shared as open_shared
from fanin.datasets.shared import save_shared as save_shared
from fanin.errors import DataError, nearest

DATASETS: dict[str, str] = {
    "auto": "MNIST if it is here or can be fetched, else (with a warning) digits",
    "mnist": "60,000 + 10,000 handwritten digits, 28 x 28; found, or fetched once into the user's cache",
    "digits": "1,437 + 360 handwritten digits, 8 x 8; comes with scikit-learn, no download",
    "FILE.npz": "arrays x_train, y_train, x_test, y_test; or X, y; or inputs, labels",
    "FILE.csv": "one example a line (.csv, .tsv, .gz); labels in column label/target/class/y, else last",
    "IMAGES,LABELS": "two IDX files, gzip or not, with a comma between",
    "ARRAYS/": "a folder of x_train.npy, y_train.npy, x_test.npy, y_test.npy; mapped, so it may be larger than memory",
    "FOLDER": "IDX files *-images-idx3-ubyte and *-labels-idx1-ubyte, or pictures [train|test]/<class>/*.png",
    "MODULE:ATTR": "arrays, a function returning them, or a torch data set, from Python code (which is run)",
}


class DataFallbackWarning(UserWarning):
    """`auto` could not have MNIST and used digits; the message says why."""


def load(
    spec: str | Path = "auto",
    *,
    data_dir: Path | str | None = None,
    progress: Progress | None = None,
    allow_code: bool = True,
) -> Dataset:
    """The data set that `spec` names (see `DATASETS`), checked and ready for training.

    `data_dir` is the folder that holds MNIST, or in which a relative path is looked for as well; `progress`
    is called as `(description, done_bytes, total_bytes or None)` while data arrive. A spec `module:attr` RUNS
    that code; `allow_code=False`, for a spec that was found in a file, refuses it. Every failure is a `DataError`
    that says what was expected, what was given, and what to do.
    """
    spec = str(spec)
    try:
        match spec:
            case "auto":
                return _load_auto(data_dir, progress)
            case "mnist":
                return load_mnist(data_dir, progress)
            case "digits":
                return load_digits()
        return _load_place(spec, data_dir, progress, allow_code=allow_code)
    except OSError as error:  # a folder that may not be entered, a name too long for the system
        raise DataError(f"{spec}: cannot be read ({error}); check the path and its permissions") from error
    except MemoryError as error:
        raise DataError(
            f"{spec}: takes more memory than there is ({error}); cut it down, or give .npy files in a folder, which "
            "are mapped and not read"
        ) from error


def _load_place(spec: str, data_dir: Path | str | None, progress: Progress | None, *, allow_code: bool) -> Dataset:
    folder = None if data_dir is None else _expanded(data_dir)
    if looks_like_attribute(spec) and not Path(spec).exists():
        if not allow_code:
            raise DataError(
                f"{spec}: names Python code, which is run only where you name it yourself, and not where a file does"
            )
        return load_attribute(spec, progress)
    if looks_like_path(spec) or _exists(spec, folder):
        return load_path(spec, folder)
    raise DataError(
        f"unknown data set {spec!r}{nearest(spec, _known())}; expected auto, mnist, digits, a path to "
        "a .npz or .csv file or to a folder, 'images,labels' (two IDX files), or module:attr"
    )


def _expanded(folder: Path | str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise DataError(f"data_dir {folder}: {error}; write the whole path") from error


def _known() -> list[str]:
    return ["auto", "mnist", "digits", *(entry.name for entry in Path.cwd().iterdir())]


def _exists(spec: str, folder: Path | None) -> bool:
    return bool(spec) and (Path(spec).exists() or (folder is not None and (folder / spec).exists()))


def _load_auto(data_dir: Path | str | None, progress: Progress | None) -> Dataset:
    try:
        return load_mnist(data_dir, progress)
    except NotFetchedError as error:
        warnings.warn(
            f"using the small data set 'digits' in place of MNIST: {error}", DataFallbackWarning, stacklevel=3
        )
    return load_digits()
