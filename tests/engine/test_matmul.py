"""The choice of the product path: by error first, then speed; restored settings; remembered, and measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fanin.engine import matmul


@pytest.mark.parametrize("path", matmul.PATHS)
def test_use(path: str) -> None:
    matmul.use(path)
    assert torch.get_float32_matmul_precision() == matmul.PATHS[path]


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(KeyError):
        matmul.use("mkl")


@pytest.mark.parametrize(
    ("onednn", "path"),
    [
        ((200.0, 1e-7), "onednn"),
        ((105.0, 1e-7), "blas"),  # not enough faster
        ((900.0, 1e-3), "blas"),  # bfloat16 inside
    ],
)
def test_error_decides_before_speed(onednn: tuple[float, float], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(batch: int, fan_in: int, fan_out: int) -> tuple[float, float]:
        gflops, error = onednn if torch.get_float32_matmul_precision() == "medium" else (100.0, 1e-7)
        return 2 * batch * fan_in * fan_out / gflops / 1e9, error

    monkeypatch.setattr(matmul, "_measure", measured)
    torch.set_float32_matmul_precision("high")
    assert matmul.probe().path == path
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_num_threads() == 1


def test_the_choice_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, calls = tmp_path / "deep" / "matmul.json", []

    def found() -> matmul.MatmulProbe:
        calls.append(1)
        return matmul.MatmulProbe("blas", {"blas": 1.0, "onednn": 1.0}, {"blas": 0.0, "onednn": 0.0})

    monkeypatch.setattr(matmul, "_cache_file", lambda: file)
    monkeypatch.setattr(matmul, "probe", found)
    assert matmul.choose() == matmul.choose()
    assert len(calls) == 1
    assert json.loads(file.read_text())["path"] == "blas"
    matmul.choose(refresh=True)
    file.write_text("{broken")
    matmul.choose()
    assert len(calls) == 3
    assert [p.name for p in file.parent.iterdir()] == ["matmul.json"]


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(matmul, "_cache_file", lambda: tmp_path / "file" / "matmul.json")
    monkeypatch.setattr(matmul, "probe", lambda: matmul.MatmulProbe("blas", {}, {}))
    assert matmul.choose().path == "blas"


def test_the_error_of_both_paths_is_that_of_float32() -> None:
    matmul.use("blas")
    _, error = matmul._measure(100, 784, 256)
    assert 0 < error < 1e-6


@pytest.mark.parametrize(("name", "inside"), [("tf32", "high"), ("fp32", "highest"), ("bf16", "highest")])
def test_a_precision_ends_where_it_began(name: str, inside: str) -> None:
    matmul.use("blas")
    with matmul.precision(name):
        assert torch.get_float32_matmul_precision() == inside
    assert matmul.in_use() == "blas"
