"""Files that are wrong, each in one way: what the table of bad inputs is run upon."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import struct
import zipfile
from pathlib import Path

import numpy as np

GOOD_ROWS = "".join(f"{i},{i / 2},{i % 2}\n" for i in range(20))


def npy(array: np.ndarray) -> bytes:
    """An .npy file, pickled objects and all."""
    np.save(buffer := io.BytesIO(), array, allow_pickle=True)
    return buffer.getvalue()


def npz(**members: bytes) -> bytes:
    """An .npz archive of these files."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def idx(code: int, *shape: int, data: bytes = b"") -> bytes:
    """An IDX file, whatever its header says of its data."""
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + data


def safetensors(**metadata: str) -> bytes:
    """A safetensors file of no tensors."""
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text


LABELS = npy(np.arange(4) % 2)

STUDIES: dict[str, bytes] = {
    "good.toml": b"seeds = 1\n[recipe]\nepochs = 1\nhidden = [4]\nbatch_size = 10\n",
    "syntax.toml": b"seeds = \n",
    "twice.toml": b"seeds = 1\nseeds = 2\n",
    "latin.toml": b'name = "caf\xe9"\n',
    "utf16.toml": "seeds = 1\n".encode("utf-16"),
    "digits.toml": b"seeds = " + b"9" * 5000 + b"\n",
    "large.toml": b"seeds = 0x" + b"f" * 4000 + b"\n",
    "deep.toml": b"seeds = " + b"[" * 3000 + b"]" * 3000 + b"\n",
    "levels.toml": b"[recipe.a.a.a.a.a.a.a.a]\na.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a = 1\n",
    "dots.toml": b"a" + b".a" * 100 + b" = 1\n",
    "escape.toml": b'title = "\\u001b[2Jgone"\n',
    "key.toml": b'"\\u0000" = 1\n',
    "negative.toml": b"seeds = -1\n",
    "type.toml": b'seeds = "six"\n',
    "nan.toml": b"success_accuracy = nan\n",
    "date.toml": b"seeds = 1979-05-27\n",
    "unknown.toml": b"sedes = 3\n",
    "recipe.toml": b"recipe = 3\n",
    "arms.toml": b"arms = []\n",
    "arm.toml": b"[[arms]]\ninit = 'zeros'\n",
    "same.toml": b"[[arms]]\nname = 'a'\n[[arms]]\nname = 'a'\n",
    "init.toml": b"[recipe]\ninit = 'xavir_uniform'\n",
    "width.toml": b"[recipe]\nhidden = [0]\n",
    "infinite.toml": b"[recipe.optimizer]\nname = 'sgd'\nlr = inf\n",
    "code.toml": b"[recipe]\nmodel = 'os:abort'\n",
    "question.toml": (
        b"[[arms]]\nname = 'one'\n[[questions]]\nask = '?'\nif_higher = 'h'\nif_lower = 'l'\na = {arm = 'onw'}\n"
        b"b = {arm = 'one'}\n"
    ),
    "grid.toml": b"[grid]\nlr = []\n",
    "grid-empty.toml": b"[recipe]\nhidden = 8\n[grid]\n",
    "trials.toml": b"seeds = 100_000_000\n",
}

DATA: dict[str, bytes] = {
    "good.csv": GOOD_ROWS.encode(),
    "empty.csv": b"",
    "cell.csv": GOOD_ROWS.encode() + b"1,oops,0\n",
    "nan.csv": GOOD_ROWS.encode() + b"1,nan,0\n",
    "huge.csv": GOOD_ROWS.encode() + b"1,1e300,0\n",
    "underscore.csv": GOOD_ROWS.encode() + b"1,1_000,0\n",
    "short.csv": GOOD_ROWS.encode() + b"1,2\n",
    "label.csv": GOOD_ROWS.encode() + b"1,2,\n",
    "fraction.csv": GOOD_ROWS.encode() + b"1,2,0.5\n",
    "zero.csv": GOOD_ROWS.encode() + b"1,\x002,0\n",
    "latin.csv": GOOD_ROWS.encode() + b"1,2,caf\xe9\n",
    "utf16.csv": GOOD_ROWS.encode("utf-16"),
    "one.csv": b"1,2,0\n",
    "cut.csv.gz": gzip.compress(GOOD_ROWS.encode())[:-9],
    "wrong.csv.gz": gzip.compress(GOOD_ROWS.encode())[:-8] + bytes(8),
    "text.npz": b"no archive",
    "names.npz": npz(a=LABELS, b=LABELS),
    "objects.npz": npz(X=npy(np.array([[object]] * 4)), y=LABELS),
    "complex.npz": npz(X=npy(np.ones((4, 2), complex)), y=LABELS),
    "infinite.npz": npz(X=npy(np.array([[1.0], [2.0], [np.inf], [4.0]])), y=LABELS),
    "lengths.npz": npz(X=npy(np.eye(3)), y=LABELS),
    "onehot.npz": npz(X=npy(np.eye(4)), y=npy(np.eye(4))),
    "below.npz": npz(X=npy(np.eye(4)), y=npy(np.array([0, 1, -1, 1]))),
    "single.npz": npz(X=npy(np.eye(4)), y=npy(np.zeros(4, int))),
    "gaps.npz": npz(X=npy(np.eye(4)), y=npy(np.array([0, 10**6, 0, 10**6]))),
    "header.npz": npz(X=b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': print}", y=LABELS),
    "lie.npz": npz(X=npy(np.eye(4))[:-8], y=LABELS),
    "minus.npz": npz(X=npy(np.eye(4)).replace(b"(4, 4)", b"(4,-4)"), y=LABELS),
    "numbers.txt": b"1 2 3\n",
    "array.npy": LABELS,
    "labels-idx1-ubyte": idx(8, 4, data=bytes(4)),
    "magic-idx1-ubyte": b"\x89PNG\r\n\x1a\n",
    "short-idx2-ubyte": idx(8, 4, 4, data=bytes(15)),
    "long-idx2-ubyte": idx(8, 4, 4, data=bytes(17)),
    "huge-idx2-ubyte": idx(8, 2**32 - 1, 2**32 - 1),
    "code-idx2-ubyte": idx(0x0F, 4, 4, data=bytes(16)),
    "none-idx2-ubyte": idx(8, 0, 4),
    "nan-idx2-float": idx(0x0D, 4, 1, data=struct.pack(">4f", 1, 2, float("nan"), 4)),
    "many-idx2-ubyte": idx(8, 5, 1, data=bytes(5)),
    "pictures/a/0.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "emptyclass/a/notes.txt": b"",
    "arrays/X.npy": LABELS[:-1],
    "arrays/y.npy": LABELS,
}

STACKS: dict[str, bytes] = {
    "junk.safetensors": b"junk",
    "promise.safetensors": struct.pack("<Q", 2**60) + b"{}",
    "other.safetensors": safetensors(format="pt"),
    "unreadable.safetensors": safetensors(format="fanin-stack-1", stack="{"),
    "list.safetensors": safetensors(format="fanin-stack-1", stack="[]"),
    "kind.safetensors": safetensors(
        format="fanin-stack-1",
        stack='{"kind": "Popen", "parameters": {}, "state": {}, "divergence": null, "notes": {}}',
    ),
    "recipe.safetensors": safetensors(recipe='{"hidden": [3]}'),
}


def make(folder: Path) -> None:
    """Write them all."""
    for name, content in (STUDIES | DATA | STACKS).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in ("empty", "bare.toml", "stores/text", "stores/later"):
        (folder / name).mkdir(parents=True)
    os.mkfifo(folder / "pipe.toml")
    (folder / "pipes/a").mkdir(parents=True)
    os.mkfifo(folder / "pipes/a/0.png")
    (folder / "stores/text/fanin.sqlite").write_bytes(b"no database at all " * 100)
    later = sqlite3.connect(folder / "stores/later/fanin.sqlite")
    later.execute("PRAGMA user_version = 99")
    later.commit()
    later.close()
