"""Small files that ask for much, each made and read under a bound on memory. Run as a program, in a folder of its own.

Prints a line for each: its name, seconds, and the message. The first argument is the bound on memory in bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fanin.datasets import load
from fanin.errors import FaninError
from fanin.study import Study

FLOODS: dict[str, Callable[[Path], object]] = {}


def flood(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Enter a flood under its function's name."""
    FLOODS[make.__name__] = make
    return make


def _packed(path: Path, parts: Iterator[bytes], level: int = 1) -> Path:
    with gzip.open(path, "wb", compresslevel=level) as file:
        for part in parts:
            file.write(part)
    return path


@flood
def gzip_of_zeros_as_idx(folder: Path) -> object:
    head = struct.pack(">HBB2I", 0, 8, 2, 10_000, 10_000)  # 100 MB of zeros in 0.4 MB
    images = _packed(folder / "images-idx2-ubyte.gz", iter([head, *[bytes(2**20)] * 96]))
    (folder / "labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 4) + bytes(4))
    return load(f"{images},{folder / 'labels-idx1-ubyte'}")


@flood
def gzip_of_zeros_as_csv(folder: Path) -> object:
    line = b"0.00000000000000," * 20_000 + b"1\n"
    return load(str(_packed(folder / "table.csv.gz", iter([line] * 200), level=9)))  # 68 MB in 0.1 MB


@flood
def one_long_label_in_many_rows(folder: Path) -> object:
    path = folder / "table.csv"
    path.write_bytes(b"1," + b"a" * 100_000 + b"\n" + b"1,b\n" * 50_000)  # as an array of text: 20 GB
    return load(str(path))


@flood
def a_row_over_endless_lines(folder: Path) -> object:
    return load(str(_packed(folder / "table.csv.gz", iter([b"1,2\n", *[b'"0123456789\n",' * 2**16] * 20]))))


@flood
def millions_of_columns(folder: Path) -> object:
    path = folder / "table.csv"
    path.write_bytes(b"," * 10_000_000 + b"\n")
    return load(str(path))


def _npy_head(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npz(folder: Path, parts: Iterator[bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "arrays.npz"
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as member:
            for part in parts:
                member.write(part)
        archive.writestr("y.npy", _npy_head((4,), "<i8") + bytes(32))
    return path


@flood
def zip_of_zeros_as_npz(folder: Path) -> object:
    return load(str(_npz(folder, iter([_npy_head((12, 2**20)), *[bytes(2**20)] * 96]))))


@flood
def an_npy_header_of_gigabytes(folder: Path) -> object:
    return load(str(_npz(folder, iter([b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31), b" " * 2**22]))))


@flood
def a_dictionary_of_gigabytes(folder: Path) -> object:
    return load(str(_npz(folder, iter([_npy_head((4, 1)) + bytes(32)]), zipfile.ZIP_LZMA)))


@flood
def an_npy_header_nested_deep(folder: Path) -> object:
    text = b"-" * 9000 + b"1\n"
    return load(str(_npz(folder, iter([b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text]))))


@flood
def a_sparse_npy_of_exabytes(folder: Path) -> object:
    (folder / "X.npy").write_bytes(_npy_head((2**40, 2**18)))
    (folder / "y.npy").write_bytes(_npy_head((4,), "<i8") + bytes(32))
    return load(str(folder))


@flood
def a_picture_of_billions_of_pixels(folder: Path) -> object:
    for name, side in (("a", 9_000), ("b", 60_000)):
        (folder / name).mkdir()
        rows = zlib.compressobj(1)
        data = b"".join(rows.compress(bytes(1 + side)) for _ in range(side if side < 10_000 else 10)) + rows.flush()
        chunks = [(b"IHDR", struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
        (folder / name / "0.png").write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
        )
    return load(str(folder))


def _study(folder: Path, text: str) -> Study:
    (folder / "study.toml").write_text(text)
    return Study.from_toml(folder / "study.toml")


@flood
def seeds_without_end(folder: Path) -> object:
    return _study(folder, "seeds = 9_000_000_000_000_000_000\n")


@flood
def a_grid_of_trillions(folder: Path) -> object:
    axes = "".join(f"k{i} = [{', '.join(['1'] * 100)}]\n" for i in range(8))
    return _study(folder, f"[grid]\n{axes}")


@flood
def a_grid_of_millions(folder: Path) -> object:
    values = ", ".join(f"{i}.5" for i in range(2000))
    return _study(folder, f"[grid]\nlr = [{values}]\ndropout = [{values}]\n")


@flood
def more_arms_than_anybody_compares(folder: Path) -> object:
    return _study(folder, "[[arms]]\n" * 100_000)


@flood
def a_key_of_many_parts(folder: Path) -> object:
    return _study(folder, "a" + ".a" * 400_000 + " = 1\n")


@flood
def tables_within_tables(folder: Path) -> object:
    return _study(folder, "a = " + "{a = " * 5000 + "1" + "}" * 5000)


@flood
def a_study_of_megabytes(folder: Path) -> object:
    return _study(folder, "#" * 2_000_000)


def main() -> None:
    """Read every flood under the bound, and tell how it ended."""
    bound, only = int(sys.argv[1]), sys.argv[2:] or list(FLOODS)
    np.ones((8, 8)) @ np.ones((8, 8))  # the threads of numpy's products take their memory before the bound
    for name in only:
        folder = Path(name)
        folder.mkdir()
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.getrlimit(resource.RLIMIT_AS)[1]))
        start, said = time.process_time(), "READ"
        try:
            FLOODS[name](folder)
        except FaninError as error:
            said = " ".join(str(error).split())
        with contextlib.suppress(BrokenPipeError):
            print(f"{name}\t{time.process_time() - start:.2f}\t{said}", flush=True)


if __name__ == "__main__":
    main()
