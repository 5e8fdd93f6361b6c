"""Folders of pictures, one folder a class: converted to grey, all of one size."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from fanin.datasets.arrays import Array, Dataset
from fanin.datasets.assemble import Examples, assemble, ordered
from fanin.datasets.limits import MAX_PIXELS, check_size
from fanin.datasets.unpack import require_file
from fanin.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_LAYOUT = "root/<class>/*.png, or root/train/<class>/*.png with root/test/<class>/*.png"
_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "WEBP",
)  # whatever a file is called; pillow's others start programs, or are rare


def load_pictures(root: Path) -> Dataset:
    """The data set in `root/<class>/*.png`, or `root/train/<class>/*` with `root/test/<class>/*` (or val)."""
    source = f"the pictures in {root}"
    below = {folder.name.lower(): folder for folder in _folders(root)}
    if "train" in below:
        tests = [below[name] for name in ("test", "val", "valid") if name in below]
        train, test = _listed(below["train"]), _listed(tests[0]) if tests else None
    else:
        train, test = _listed(root), None
    names = ordered(train)
    if test and (unseen := set(test) - set(train)):
        raise DataError(
            f"{source}: test classes without training pictures: {', '.join(sorted(unseen))}; add a folder for each"
        )
    size = _size(next(iter(train.values()))[0])
    count = sum(len(paths) for part in (train, test or {}) for paths in part.values())
    check_size(f"{source}, {count:,} of {size[0]} x {size[1]}", count * size[0] * size[1])
    parts = [None if part is None else _read(part, names, size) for part in (train, test)]
    assert parts[0] is not None, "the training part is always listed"
    return assemble(root.resolve().name, source, parts[0], parts[1], classes=names)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _listed(root: Path) -> dict[str, list[Path]]:
    """`{class: its picture files}` in sorted order; an empty class folder is an error."""
    classes = {}
    for folder in _folders(root):
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not files:
            raise DataError(
                f"{folder}: expected pictures ({', '.join(SUFFIXES)}) of class {folder.name!r}, found "
                f"none; expected layout: {_LAYOUT}"
            )
        classes[folder.name] = files
    if not classes:
        raise DataError(
            f"{root}: expected a folder of IDX files, or of pictures as {_LAYOUT}; found no folder of a class"
        )
    return classes


def _read(classes: dict[str, list[Path]], names: tuple[str, ...], size: tuple[int, int]) -> Examples:
    pairs = [(path, names.index(name)) for name, paths in sorted(classes.items()) for path in paths]
    inputs = np.empty((len(pairs), *size), np.uint8)
    first = pairs[0][0]
    for i, (path, _) in enumerate(pairs):
        grey = read_grey(path)
        if grey.shape != size:
            raise DataError(
                f"{path}: expected {size[0]} x {size[1]} (height x width) as the first picture, "
                f"given {grey.shape[0]} x {grey.shape[1]}; bring all pictures to one size (the first "
                f"of this part is {first.name})"
            )
        inputs[i] = grey
    return Examples(inputs, np.array([label for _, label in pairs]))


def _size(path: Path) -> tuple[int, int]:
    height, width = read_grey(path).shape
    return height, width


def read_grey(path: Path) -> Array:
    """A picture file as grey bytes (height, width), transparent parts on white; DataError if it cannot be read."""
    from PIL import Image  # only this reader needs it

    if os.path.exists(path):
        require_file(path)  # a pipe would be waited for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pillow's doubts about a file, the errors will do
            with Image.open(path, formats=_FORMATS) as picture:
                _check_pixels(picture.size, path)
                if picture.mode.startswith(("I", "F")):  # deeper than bytes: converting would clip to white
                    return _deep(np.asarray(picture), path)
                if picture.has_transparency_data:
                    white = Image.new("RGBA", picture.size, "white")
                    return np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("L"))
                return np.asarray(picture.convert("L"))
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, MemoryError, ...
        raise DataError(
            f"{path}: cannot be read as a picture ({error or type(error).__name__}); expected {', '.join(_FORMATS)}: "
            "replace or remove the file"
        ) from error


def _check_pixels(size: tuple[int, int], path: Path) -> None:
    """Before the picture is decoded: a small file may hold a huge one."""
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{path}: expected at most {MAX_PIXELS:,} pixels, given {size[0]:,} x {size[1]:,}; make the picture smaller"
        )


def _deep(pixels: Array, path: Path) -> Array:
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() >= 2**16:
        raise DataError(f"{path}: expected 8 or 16 bits a pixel, given {pixels.dtype}; convert it to 8-bit grey")
    return (pixels // 256).astype(np.uint8)
