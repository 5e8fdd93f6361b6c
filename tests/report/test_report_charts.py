"""Charts: what is drawn, that the drawing follows the theme, and that specifications are valid Vega-Lite."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from fanin.report import curves, depth, vega
from fanin.report.axes import accuracy_axis, linear_axis, log_axis, points_axis, value_axis
from fanin.report.charts import charts
from fanin.report.labels import Label, shortened, spread
from fanin.report.measures import Band

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def figures(summaries):
    return {summary.study.name: charts(summary) for summary in summaries}


def panels(figures, study, title):
    return next(f for f in figures[study] if f.title == title).panels


def marks(svg, name):
    """The paths of the layer of that name, each once."""
    found = []
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        if {f"{name}_marks", f"{name}_pathgroup"} & set(group.get("class", "").split()):
            found += [path for path in group.iter(f"{SVG}path") if not any(path is other for other in found)]
    return found


def paths(svg, name):
    """The lines among them: paths of more than two points."""
    return [path.get("d") for path in marks(svg, name) if path.get("d", "").count("L") > 1]


def test_every_figure_is_sound_svg_that_follows_the_page(figures):
    for found in figures.values():
        for figure in found:
            for heading, svg in figure.panels:
                root = ET.fromstring(svg)
                assert root.get("role") == "img"
                assert root.get("aria-label") == root.find(f"{SVG}title").text
                assert "currentColor" in svg
                assert "#0102" not in svg
                assert "#0a0b" not in svg
                assert "NaN" not in svg
                assert 'fill="white"' not in svg
                assert not re.findall(r"https?://(?!www\.w3\.org)", svg)
                assert bool(heading) == (len(figure.panels) > 1)


def test_curves_have_a_line_per_seed_and_the_published_one(figures, by_name):
    ((_, svg),) = panels(figures, "nn", "Training cost")
    assert len(paths(svg, "seeds0")) == len(paths(svg, "seeds1")) == 6
    assert len(paths(svg, "published0")) == len(paths(svg, "published1")) == 1
    assert len(marks(svg, "published0dots")) == 15
    ((_, accuracy),) = panels(figures, "nn", "Test accuracy")
    assert not paths(accuracy, "published0")
    ((_, rates),) = panels(figures, "rates", "Training cost")
    assert len(paths(rates, "seeds1")) == 5  # the failed trial is no result
    assert "×" in rates  # the diverged one ends there
    assert by_name["rates"].arms[1].n == 5


def test_many_arms_get_a_panel_each(figures):
    found = panels(figures, "init", "Training cost")
    assert [heading for heading, _ in found][:2] == ["Xavier uniform", "Xavier normal"]
    assert len(found) == 10
    for i, (_, svg) in enumerate(found):
        assert len(paths(svg, f"seeds{i}")) == 6
        assert len(paths(svg, "others")) >= 8
    assert [f.title for f in figures["init"]].count("Test accuracy") == 0
    ((_, dots),) = panels(figures, "init", "Final test accuracy")
    assert all(len(marks(dots, f"seeds{i}")) == 6 for i in range(10))


def test_batch_normalisation_gets_its_four_figures(figures):
    titles = [f.title for f in figures["batchnorm"]]
    assert titles[:4] == ["Training loss", "Test loss", "Training accuracy", "Test accuracy"]
    for title in titles[:4]:
        ((_, svg),) = panels(figures, "batchnorm", title)
        assert len(marks(svg, "published0dots")) == len(marks(svg, "published1dots")) == 10


def test_the_dying_gradient_is_labelled(figures):
    found = next(f for f in figures["activation"] if f.title.startswith("Gradient"))
    assert "sigmoid ×10⁻¹¹" in found.panels[0][1]
    assert "sigmoid: a 10⁻¹¹ part of it" in found.caption
    assert len(marks(found.panels[0][1], "dots0")) == 10


def test_zeros_on_a_log_scale_are_marked_and_shallow_nets_have_no_signal_chart(figures):
    found = next(f for f in figures["init"] if f.title.startswith("Gradient"))
    assert len(marks(found.panels[0][1], "zeros9")) == 4
    assert "zeros 0" in found.panels[0][1]
    assert "nothing reaches the first layer" in found.caption
    assert not any("Signal" in f.title for f in figures["rates"])


def test_differences_have_an_interval_per_arm_filled_where_claimed(figures, by_name):
    ((_, svg),) = panels(figures, "init", "Paired differences")
    for i, arm in enumerate(by_name["init"].arms[1:], 1):
        (dot,) = marks(svg, f"mean{i}")
        assert ("--paper" in dot.get("fill")) == (arm.difference.verdict not in {"higher", "lower"})
    assert "Paired differences" not in [f.title for f in figures["softmax"]]  # one seed
    ((_, few),) = panels(figures, "rates", "Paired differences")  # four pairs: nothing was tested
    assert "--paper" in marks(few, "mean1")[0].get("fill")


def test_clip_paths_of_two_charts_never_share_a_name(figures):
    ids = [
        i for found in figures.values() for f in found for _, svg in f.panels for i in re.findall(r'id="([^"]+)"', svg)
    ]
    assert len(ids) == len(set(ids))


def test_specifications_are_valid_vega_lite(by_name, monkeypatch):
    altair = pytest.importorskip("altair")
    specs = []
    real = vega.vl_convert.vegalite_to_svg
    monkeypatch.setattr(vega.vl_convert, "vegalite_to_svg", lambda s, **k: specs.append(s) or real(s, **k))
    charts(by_name["nn"])
    assert len(specs) == 5
    for spec in specs:
        altair.LayerChart.from_dict(spec, validate=True)
    with pytest.raises(Exception, match="is not of type"):
        altair.LayerChart.from_dict(specs[0] | {"width": "very"}, validate=True)


def test_curve_axes_turn_logarithmic_beyond_a_decade_and_a_half(by_name):
    assert value_axis([0.01, 1.0], "").kind == "log"
    assert value_axis([0.1, 1.0], "").kind == "linear"
    assert value_axis([0.0, 1.0], "").kind == "linear"
    assert curves.has_curve(by_name["nn"], "train_cost")
    assert not curves.has_curve(by_name["nn"], "train_loss")


def test_axes_contain_their_values_and_have_ticks():
    for values in ([3.0], [1e-12, 1e3], [0.02, 0.03], [-5.0, 7.0], [0.0], [0.1, 0.11, 0.12]):
        axis = log_axis(values, "") if min(values) > 0 else linear_axis(values, "")
        assert axis.low < min(values) <= max(values) < axis.high
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
        assert len(axis.ticks) >= 2
        assert len(set(axis.texts)) == len(axis.texts)


def test_accuracies_that_differ_by_decades_are_shown_by_their_error():
    axis, plotted = accuracy_axis([0.11, 0.98, 0.981], "")
    assert axis.reverse
    assert axis.at(plotted(0.98)) - axis.at(plotted(0.97)) > 0.05
    near, percent = accuracy_axis([0.97, 0.98], "")
    assert (near.kind, percent(0.98)) == ("linear", 98.0)
    perfect, error = accuracy_axis([0.1, 1.0], "")
    assert perfect.low < error(1.0)


def test_one_large_difference_does_not_hide_the_small_ones():
    assert points_axis([-86.0, 0.1, 0.2], "").kind == "symlog"
    assert points_axis([0.1, 0.2], "").kind == "linear"


def test_labels_move_apart_and_stay_inside():
    labels = [Label(str(i), 0.5, "") for i in range(5)] + [Label("top", 1.0, "")]
    placed = spread(labels, 0.1)
    heights = [label.placed for label in placed]
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(heights))
    assert min(heights) >= 0
    assert max(heights) <= 1 + 1e-9
    assert [label.placed for label in spread([Label("a", 0.2, ""), Label("b", 0.8, "")], 0.1)] == [0.2, 0.8]
    assert shortened("abcdef", 4) == "abc…"


def test_a_thousand_layers_are_a_line_without_dots():
    band = Band(1.0, 0.5, 2.0)
    for count, names in ((depth.MOST_DOTS, ["band0", "mean0", "dots0"]), (1000, ["band0", "mean0"])):
        line = [(n, band) for n in range(1, count + 1)]
        axis = linear_axis([0.0, 2.0], "")
        assert [part["name"] for part in depth._arm(0, line, axis, axis, backward=False)] == names
