"""Every reader of files from outside, with valid files to start from: what the tests and benchmarks/fuzz.py feed."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fanin.bundle import bundled
from fanin.datasets import load
from fanin.datasets.pictures import read_grey
from fanin.study import Study

X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.arange(20) % 2


@dataclass(frozen=True)
class Reader:
    """read: puts these bytes into a file in the folder and reads it. seeds: valid files, made when first asked for."""

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], tuple[bytes, ...]]


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _study(content: bytes, folder: Path) -> object:
    return Study.from_toml(_written(folder / "study.toml", content)).to_toml()


def _studies() -> tuple[bytes, ...]:
    return (*(path.read_bytes() for path in bundled().values()), b'[recipe]\nhidden = "8x2"\n[grid]\nlr = [0.1, 0.2]\n')


def _csv(content: bytes, folder: Path) -> object:
    return load(str(_written(folder / "table.csv", content)))


def _tables() -> tuple[bytes, ...]:
    rows = [f"{i},{i / 2},{'ab'[i % 2]}" for i in range(12)]
    plain = "\n".join(rows).encode()
    header = b"\xef\xbb\xbfu;v;label\r\n" + "\r\n".join(rows).replace(",", ";").encode()
    return plain, header, b'"a\nb",y\n' + plain, gzip.compress(plain), plain.replace(b"\n", b"\r")


def _idx(content: bytes, folder: Path) -> object:
    labels = _written(folder / "labels-idx1-ubyte", idx_bytes(Y.astype("u1")))
    return load(f"{_written(folder / 'images-idx3-ubyte', content)},{labels}")


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of bytes, written by the format's text."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _idx_files() -> tuple[bytes, ...]:
    plain = idx_bytes(np.arange(120, dtype="u1").reshape(20, 2, 3))
    return plain, gzip.compress(plain)


def _npz(content: bytes, folder: Path) -> object:
    return load(str(_written(folder / "arrays.npz", content)))


def _npz_files() -> tuple[bytes, ...]:
    def saved(save: Callable[..., None], **arrays: np.ndarray) -> bytes:
        save(buffer := io.BytesIO(), **arrays)
        return buffer.getvalue()

    return (
        saved(np.savez, X=X, y=Y),
        saved(np.savez_compressed, x_train=X, y_train=Y, x_test=X, y_test=Y),
        saved(np.savez, inputs=X.astype(">f8"), labels=np.array(["cat", "dog"] * 10)),
    )


def npy_bytes(array: np.ndarray) -> bytes:
    """An .npy file, as numpy writes it."""
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


def _npz_array(content: bytes, folder: Path) -> object:
    """The bytes as one array of an archive whose checksums are right: what lies behind them is reached."""
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        archive.writestr("X.npy", content)
        archive.writestr("y.npy", npy_bytes(Y))
    return load(str(folder / "arrays.npz"))


def _npz_labels(content: bytes, folder: Path) -> object:
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        archive.writestr("X.npy", npy_bytes(X))
        archive.writestr("y.npy", content)
    return load(str(folder / "arrays.npz"))


def _npy(content: bytes, folder: Path) -> object:
    arrays = folder / "arrays"
    _written(arrays / "X.npy", content)
    _written(arrays / "y.npy", npy_bytes(Y))
    return load(str(arrays))


def _npy_files() -> tuple[bytes, ...]:
    return tuple(npy_bytes(a) for a in (X, X.astype(">f8"), np.asfortranarray(X), (X * 2).astype("u1"), Y))


def _label_files() -> tuple[bytes, ...]:
    return tuple(npy_bytes(a) for a in (Y, Y.astype("f4"), np.array(["cat", "dog"] * 10), Y.astype(">i2")[:, None]))


def _picture(content: bytes, folder: Path) -> object:
    return read_grey(_written(folder / "picture.png", content))


@cache
def _pictures() -> tuple[bytes, ...]:
    from PIL import Image

    found = []
    for mode, kind in (
        ("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("1", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"),
        ("RGB", "BMP"), ("P", "BMP"), ("P", "GIF"), ("RGB", "WEBP"),
    ):  # fmt: skip
        Image.new(mode, (5, 4), 1 if mode in ("L", "P", "I;16", "1") else None).save(buffer := io.BytesIO(), kind)
        found.append(buffer.getvalue())
    return tuple(found)


def _stack(content: bytes, folder: Path) -> object:
    from fanin.pretraining.saving import load_stack

    return load_stack(_written(folder / "stack.safetensors", content))


@cache
def _stacks() -> tuple[bytes, ...]:
    import tempfile

    from fanin.pretraining import DBN, RBM, StackedAutoencoder
    from fanin.pretraining.saving import save_stack

    rows = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    options = {"batch_size": 10, "epochs": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack"
        found = []
        for model in (RBM(2, **options), DBN((2, 2), **options), StackedAutoencoder((2, 2), **options)):
            save_stack(path, model.fit(rows), notes={"data": {"name": "made up"}})
            found.append(path.read_bytes())
    return tuple(found)


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with this header, written by the format's text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _stack_metadata(content: bytes, folder: Path) -> object:
    """The bytes as the description within a stack's file, whose tensors are those of a machine."""
    whole = _stacks()[0]
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["stack"] = content.decode("utf-8", "replace")
    return _stack(safetensors_bytes(header, whole[8 + size :]), folder)


def _stack_descriptions() -> tuple[bytes, ...]:
    whole = _stacks()[0]
    size = struct.unpack("<Q", whole[:8])[0]
    return (json.loads(whole[8 : 8 + size])["__metadata__"]["stack"].encode(),)


def _weights(content: bytes, folder: Path) -> object:
    from fanin.engine.export import load_weights

    return load_weights(_written(folder / "weights.safetensors", content))


def _weight_files() -> tuple[bytes, ...]:
    shapes = {"layers.0.weight": (2, 3), "layers.0.bias": (2,), "layers.1.weight": (2, 2), "layers.1.bias": (2,)}
    header: dict[str, object] = {"__metadata__": {"recipe": '{"hidden": [2]}', "seed": "0", "scale": "1.0"}}
    at = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return (safetensors_bytes(header, bytes(at)),)


READERS: dict[str, Reader] = {
    "toml": Reader(_study, _studies),
    "csv": Reader(_csv, _tables),
    "idx": Reader(_idx, _idx_files),
    "npz": Reader(_npz, _npz_files),
    "npz-array": Reader(_npz_array, _npy_files),
    "npz-labels": Reader(_npz_labels, _label_files),
    "npy": Reader(_npy, _npy_files),
    "picture": Reader(_picture, _pictures),
    "stack": Reader(_stack, _stacks),
    "stack-metadata": Reader(_stack_metadata, _stack_descriptions),
    "weights": Reader(_weights, _weight_files),
}
