"""What the tests of the data sets share: writers of IDX files, a small fake MNIST, a home of their own."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from fanin.datasets import mnist

REAL_MNIST = Path(__file__).parents[2].parent / "shared/data/mnist"
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file, written by the format's text and not by the reader's code."""
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(">HBB", 0, code, array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in an empty current folder and home, without mirrors or npm: nothing leaks in or out."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.chdir(home)
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.delenv("FANIN_DATA", raising=False)
    monkeypatch.setenv("PATH", str(home / "nothing"))
    monkeypatch.setattr(mnist, "MIRRORS", ())


@pytest.fixture
def real_mnist() -> Path:
    if not REAL_MNIST.is_dir():
        pytest.skip(f"no MNIST at {REAL_MNIST}")
    return REAL_MNIST


def small_mnist() -> dict[str, bytes]:
    """Four uncompressed files like MNIST's, with 40 + 20 pictures of 2 x 3."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 40), ("t10k", 20)):
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(rng.integers(0, 256, (n, 2, 3)).astype("u1"))
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes((np.arange(n) % 10).astype("u1"))
    return files


def adopt(files: dict[str, bytes], patch: pytest.MonkeyPatch) -> None:
    """Let `mnist` take the small files for the true ones."""
    table = {}
    for stem, data in files.items():
        shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
        table[stem] = mnist._File(len(data), shape, hashlib.sha256(data).hexdigest())
    patch.setattr(mnist, "FILES", table)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    files = small_mnist()
    adopt(files, monkeypatch)
    return files


def put(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, data in files.items():
        if packed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / stem).write_bytes(data)
    return folder


def fake_npm(folder: Path, body: str, patch: pytest.MonkeyPatch) -> None:
    """An executable `npm` on PATH that runs `body` as Python in the folder where npm was called."""
    folder.mkdir(parents=True, exist_ok=True)
    npm = folder / "npm"
    npm.write_text(f"#!{sys.executable}\n{body}")
    npm.chmod(0o755)
    patch.setenv("PATH", str(folder))
