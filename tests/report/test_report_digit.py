"""Images in the terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from fanin.errors import DataError
from fanin.report.digit import print_digit


def shown(image, **options):
    out = io.StringIO()
    print_digit(image, Console(file=out, width=100, **options))
    return out.getvalue()


def test_plain_output_is_ascii_shades_of_pixel_pairs():
    image = np.zeros((4, 5))
    image[:2, 2] = 255
    image[2:, 4] = 128
    assert shown(image) == "  @  \n    +\n"


def test_colour_draws_two_pixels_a_character():
    text = shown([[0, 255], [255, 0], [0, 0]], force_terminal=True, color_system="truecolor")
    assert text.count("▀") == 4
    assert "38;2;255;255;255" in text
    assert "48;2;255;255;255" in text


def test_a_flat_image_is_black_and_what_is_no_image_is_refused():
    assert shown(np.ones((2, 3))).strip() == ""
    for wrong in (np.zeros(3), np.zeros((0, 0)), [[float("nan")]]):
        with pytest.raises(DataError, match="2-D array of finite numbers"):
            shown(wrong)
