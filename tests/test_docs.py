"""README and docs: links lead somewhere, and the first Python a reader tries runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_code_exist(page):
    for name in re.findall(r"`((?:src|tests|benchmarks|docs|examples)/[\w./-]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_the_readmes_python_runs(tmp_path, run_strictly):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    code = "\n".join(blocks)
    assert "Xavier" in run_strictly("-c", code, folder=tmp_path)


def test_the_python_of_initialisation_runs(tmp_path, run_strictly):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "initialisation.md").read_text(), re.DOTALL)
    out = run_strictly("-c", "\n".join(blocks), folder=tmp_path)
    (table,) = re.findall(r"```\n(parameter .*?)```", (ROOT / "docs" / "initialisation.md").read_text(), re.DOTALL)
    assert table.splitlines() == [line.rstrip() for line in out.splitlines()[: len(table.splitlines())]]
    assert "lsuv: variance of the layer's output" in out


def test_the_python_of_pretraining_runs(tmp_path, run_strictly):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pretraining.md").read_text(), re.DOTALL)
    assert "4: left alone, the last layer" in run_strictly("-c", "\n".join(blocks), folder=tmp_path)


def test_the_python_of_diagnosis_runs(tmp_path, run_strictly):
    text = (ROOT / "docs" / "diagnosis.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    code, shown = ("\n".join(block for kind, block in blocks if kind == wanted) for wanted in ("python", ""))
    out = run_strictly("-c", code, folder=tmp_path)
    assert out.split() == shown.split()


def test_the_readmes_study_is_valid():
    from fanin.study import Study

    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    import tomllib

    assert [arm.name for arm in Study.from_dict(tomllib.loads(block)).arms] == ["narrow", "wide"]
