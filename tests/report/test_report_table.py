"""The terminal table at several widths, with and without colour, in UTF-8 and in ASCII."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fanin.report.table import print_table
from fanin.report.words import hundredths


def shown(summary, width, **options):
    out = io.StringIO()
    print_table(summary, Console(file=out, width=width, **options))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_lines_fit_and_every_arm_and_mean_is_there(summaries, width):
    for summary in summaries:
        text = shown(summary, width)
        assert all(len(line) <= width for line in text.splitlines())
        for arm in summary.arms:
            assert arm.name.split()[0] in text
            assert hundredths(arm.accuracy.mean) in text
            if arm.difference:
                assert hundredths(arm.difference.mean, sign=True) in text


def test_what_a_hundred_columns_say(by_name):
    text = shown(by_name["nn"], 100)
    for words in (
        "16/16 yes",
        "6/6",
        "reference",
        "▲ +3.61",
        "Does Xavier's initialisation help?",
        "Yes: 98.08",
    ):
        assert words in text
    assert "12 of 12 trials, 6 seeds an arm, mnist, cpu, fanin 0.1.0, torch 2.13.0" in text
    trouble = shown(by_name["rates"], 100)
    assert "SGD, lr = 1, seed 2: diverged in epoch 4, step 417, layer 1" in trouble
    assert "4/5" in trouble
    deep = shown(by_name["deep"], 100)
    assert "2/16 no" in deep
    assert "and 11 more" in deep
    assert "Likely reason: The printed numbers come from" in " ".join(deep.split())
    assert "Not compared: published numbers need at least 6 finished seeds, 1 finished." in shown(
        by_name["softmax"], 100
    )


def test_fewer_seeds_than_planned_are_counted(by_name):
    text = shown(by_name["rates"], 100)
    row = text[text.index("SGD") :].splitlines()[:2]
    assert row[1].split("  ")[-1].strip().endswith("too few pairs (4)")
    assert "n = 4" in row[1]
    assert "○" not in row[0]
    assert "n =" not in shown(by_name["nn"], 100)
    assert "summed over trials" in " ".join(text.split())


def test_narrow_drops_columns_before_it_breaks_numbers(by_name):
    assert "pixels" in shown(by_name["init"], 100)
    assert "pixels" not in shown(by_name["init"], 60)


def test_without_colour_there_are_no_escapes_and_with_it_there_are(by_name):
    assert "\x1b" not in shown(by_name["nn"], 100)
    assert "\x1b[32m" in shown(by_name["nn"], 100, force_terminal=True, color_system="truecolor")


def test_markup_in_names_is_text(by_name):
    text = shown(by_name["deep"], 100)
    assert "as <b>& described" in text


def test_an_ascii_terminal_gets_ascii(by_name):
    for name in ("nn", "activation", "init"):
        raw = io.BytesIO()
        console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=100)
        print_table(by_name[name], console)
        assert raw.getvalue().isascii()
        assert (b"1.07e-11" in raw.getvalue()) == (name == "activation")
