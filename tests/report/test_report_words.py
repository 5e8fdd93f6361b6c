"""Numbers as text, and what importing the room costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fanin.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (129.3256, "129"),
        (0.751342, "0.751"),
        (0.006201, "0.00620"),
        (0.9999, "1.00"),
        (999.96, "1000"),
        (1.2e-7, "1.20×10⁻⁷"),
        (2.65e9, "2.65×10⁹"),
        (-0.5, "−0.500"),
        (0.0, "0"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_three_significant_digits(value, text):
    assert words.significant(value) == text


def test_hundredths_have_a_true_minus_and_no_negative_zero():
    assert words.hundredths(0.98056) == "98.06"
    assert words.hundredths(0.0052, sign=True) == "+0.52"
    assert words.hundredths(-0.0052, sign=True) == "−0.52"
    assert words.hundredths(-0.00001, sign=True) == "0.00"
    assert words.hundredths(None) == "–"


def test_durations_and_counts():
    assert [words.duration(s) for s in (0.42, 38.2, 725, 12000)] == [
        "0.42 s",
        "38 s",
        "12 min 5 s",
        "3 h 20 min",
    ]
    assert [words.count(n, "study") for n in (1, 2)] == ["1 study", "2 studies"]
    assert words.count(60000, "image") == "60,000 images"
    assert words.interval(0.1, None, rate=True) == ""


def test_intervals_of_accuracies_stay_within_0_and_100():
    assert words.accuracy_interval(-0.02, 0.5) == "[0.00, 50.00]"
    assert words.accuracy_interval(0.9, 1.02) == "[90.00, 100.00]"
    assert words.accuracy_interval(None, None) == ""
    assert words.interval(-0.02, 1.02, rate=True) == "[−2.00, 102.00]"  # a difference may leave them


def test_a_distance_reads_as_a_factor():
    assert words.quantity("distance_to_published", 0.058) == "a factor of 1.06"
    assert words.quantity("distance_to_published", 1e6) == "a factor of 1.01×10³⁰⁴"
    assert words.factor(None) == "–"


def test_the_room_is_cheap_to_name_and_never_loads_torch():
    code = (
        "import sys, fanin.report; assert not {'scipy', 'rich', 'vl_convert', 'numpy'} & set(sys.modules);"
        "import fanin.report.page, fanin.report.table, fanin.report.digit; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
