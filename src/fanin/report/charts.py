"""Which charts a study gets: curves, the batch-normalisation figures, signal by depth, paired differences."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fanin.report import curves, depth, findings, forest
from fanin.report.bounds import MOST_DRAWN, MOST_SEEDS, left_out
from fanin.report.grid import Map, maps
from fanin.report.heatmap import heatmap
from fanin.report.results import StudySummary
from fanin.report.words import LABELS, count, power_of_ten

MOST_TOGETHER = 4  # arms in one chart of curves; more get a panel each
_BAND = f"Of more than {MOST_SEEDS} seeds: the median, and a band from the 5 % to the 95 % quantile."


@dataclass(frozen=True)
class Figure:
    """One figure: a title, a caption, and its panels as (heading, SVG); a single panel has no heading."""

    title: str
    caption: str
    panels: tuple[tuple[str, str], ...]


def charts(summary: StudySummary) -> list[Figure]:
    """The figures that say something about this study, in reading order; no figure repeats another."""
    found = maps(summary)
    if found:
        return [_heat(part, summary) for part in found]
    drawn = replace(summary, arms=summary.arms[:MOST_DRAWN])
    note = left_out(len(summary.arms), MOST_DRAWN, "arms", "`fanin results --json`")
    figures = [*_curves(drawn), *_signal(drawn), *_accuracy(drawn)]
    return [replace(figure, caption=f"{figure.caption} {note}") for figure in figures] if note else figures


def _heat(found: Map, summary: StudySummary) -> Figure:
    title = f"test accuracy by {found.x.title} and {found.y.title}"
    seeds = count(summary.study.seeds, "seed")
    caption = f"Mean over {seeds}, in percent; ×: no trial ended."
    hits, total = found.agreement()
    if total:
        caption += (
            " Line: the depth to which theory says that training reaches, six depth scales; "
            f"{hits} of {total} settings do as it says."
        )
    name = f"{found.name}: {title}" if found.name else _capital(title)
    return Figure(name, caption, (("", heatmap(found, name)),))


def _curves(summary: StudySummary) -> list[Figure]:
    if curves.has_curve(summary, "train_loss"):
        names = ["train_loss", "test_loss", "train_accuracy", "test_accuracy"]
        if curves.has_published(summary, "train_cost"):
            names.insert(0, "train_cost")
    else:
        names = ["train_cost", "test_accuracy"]
    wanted = [name for name in names if curves.has_curve(summary, name)]
    if len(summary.arms) <= MOST_TOGETHER:
        return [_together(summary, name) for name in wanted]
    # with many arms the final accuracies are shown seed by seed instead of a second set of panels
    return [_alone(summary, name) for name in wanted if name in {"train_cost", "train_loss"}]


def _together(summary: StudySummary, metric: str) -> Figure:
    title = _capital(LABELS[metric])
    label = f"{title} by epoch, a line per seed, arms: {_names(summary)}"
    return Figure(title, _legend(summary, metric), (("", curves.together(summary, metric, label)),))


def _alone(summary: StudySummary, metric: str) -> Figure:
    title = _capital(LABELS[metric])
    panels = tuple(
        (arm.name, curves.alone(summary, metric, i, f"{title} by epoch: {arm.name}"))
        for i, arm in enumerate(summary.arms)
    )
    return Figure(title, f"{_legend(summary, metric)} Grey: the means of the other arms.", panels)


def _legend(summary: StudySummary, metric: str) -> str:
    text = "By epoch, one thin line per seed."
    if curves.has_published(summary, metric):
        text += " Dotted with open dots: published."
    if any(arm.statuses.get("diverged") for arm in summary.arms):
        text += " ×: diverged."
    if curves.has_band(summary):
        text += f" {_BAND}"
    return text


def _signal(summary: StudySummary) -> list[Figure]:
    if max((len(depth.bands_at(arm, 0)) for arm in summary.arms), default=0) < 3:
        return []
    found = [
        Figure(
            "Signal forward, before training",
            "Second moment of the activations by layer; band: smallest to largest seed.",
            (("", depth.forward(summary, f"Activation by layer before training, arms: {_names(summary)}")),),
        ),
        Figure(
            "Gradient backward, before training",
            _decay(summary),
            (("", depth.backward(summary, f"Gradient by layer before training, arms: {_names(summary)}")),),
        ),
    ]
    for field, title in (
        ("dead", "Dead units after training"),
        ("saturated", "Saturated units after training"),
    ):
        if _share(summary, field) >= depth.NOTABLE_SHARE:
            label = f"{title} by layer, arms: {_names(summary)}"
            caption = {
                "dead": "Share of units with derivative zero on every example.",
                "saturated": "Share of (example, unit) pairs with a derivative under 5 % of its largest.",
            }[field] + " Arms under 5 % in every layer are left out."
            found.append(Figure(title, caption, (("", depth.share(summary, field, label)),)))
    return found


def _decay(summary: StudySummary) -> str:
    text = "Second moment of the gradient; read from the output layer leftwards."
    known = {arm.name: ratio for arm in summary.arms if (ratio := depth.decay(arm)) is not None}
    small = min(known, key=lambda name: known[name], default=None)
    if small is None or known[small] >= 1 / depth.NOTABLE:
        return text
    if known[small] == 0:
        return f"{text} {small}: nothing reaches the first layer."
    return f"{text} {small}: a {power_of_ten(known[small])} part of it reaches the first layer."


def _share(summary: StudySummary, field: str) -> float:
    return max(depth.largest_share(arm, field) for arm in summary.arms)


def _accuracy(summary: StudySummary) -> list[Figure]:
    found = []
    if len(summary.arms) > MOST_TOGETHER and any(arm.accuracy.values for arm in summary.arms):
        label = f"Final test accuracy by arm and seed, arms: {_names(summary)}"
        caption = "A dot per seed, a bar at the mean."
        if curves.has_band(summary):
            caption += f" {_BAND}"
        found.append(Figure("Final test accuracy", caption, (("", forest.accuracies(summary, label)),)))
    if any(arm.difference and arm.difference.n > 1 for arm in summary.arms):
        first = summary.arms[0].name
        several = sum(1 for arm in summary.arms if arm.difference) > 1
        bars = "Bars: intervals that together hold with 95 %." if several else "Bar: 95 % interval."
        caption = (
            f"Accuracy minus that of {first}, in points, paired by seed. {bars} Ticks: seeds. "
            "Filled: a difference is claimed; open: none is."
        )
        if curves.has_band(summary):
            caption += f" Of more than {MOST_SEEDS} seeds, no ticks."
        label = f"Paired differences in accuracy to {first}, arms: {_names(summary)}"
        found.append(Figure("Paired differences", caption, (("", forest.differences(summary, label)),)))
    return found


def _names(summary: StudySummary) -> str:
    return findings.listed([arm.name for arm in summary.arms], most=MOST_DRAWN)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
