"""Numbers and outcomes as people read them: percent, points, significant digits, durations, outcomes."""

from __future__ import annotations

import math

from fanin.record import Record

MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NOTHING = "\N{EN DASH}"
RATES = ("accuracy", "accuracy_on_raw_pixels", "test_accuracy", "train_accuracy")

LABELS = {
    "accuracy": "test accuracy",
    "accuracy_on_raw_pixels": "accuracy on raw pixels",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "train_accuracy": "training accuracy",
    "train_cost": "training cost",
    "train_cost_first_epoch": "training cost of the first epoch",
    "train_loss": "training loss",
    "gradient_ratio": "gradient ratio, first layer over last",
    "distance_to_published": "distance to the published curve",
}


def hundredths(value: float | None, *, sign: bool = False) -> str:
    """100 * value with 2 decimals: an accuracy in percent or a difference in points, without the unit."""
    if value is None:
        return NOTHING
    text = f"{100 * value:.2f}"
    text = text.lstrip("-") if float(text) == 0 else text
    return ("+" if sign and float(text) > 0 else "") + text.replace("-", MINUS)


def percent(value: float | None) -> str:
    """An accuracy as "97.98 %" (with a no-break space)."""
    return NOTHING if value is None else f"{hundredths(value)}\N{NO-BREAK SPACE}%"


def significant(value: float | None) -> str:
    """Three significant digits: 129, 0.751, 0.00620; 1.20×10⁻⁷ under 0.0001, 1.20×10⁶ from a million on."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    power = int(exponent)
    plain = f"{float(f'{value:.2e}'):.{max(0, 2 - power)}f}"
    text = plain if -4 <= power < 6 else f"{mantissa}×10{str(power).translate(SUPERSCRIPT)}"
    return text.replace("-", MINUS)


def power_of_ten(value: float) -> str:
    """A positive number's order of magnitude: "10⁻⁹"."""
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPT)


def quantity(metric: str, value: float | None) -> str:
    """A metric's value: accuracies as percent, a distance as a factor, all else with three significant digits."""
    if metric == "distance_to_published":
        return f"a factor of {factor(value)}"
    return percent(value) if metric in RATES else significant(value)


def factor(distance: float | None) -> str:
    """exp of a logarithmic distance, three significant digits: "1.06" for 0.058."""
    return NOTHING if distance is None else significant(math.exp(min(distance, 700.0)))  # exp(710) overflows


def interval(low: float | None, high: float | None, *, rate: bool) -> str:
    """ "[97.81, 98.15]", in hundredths for a rate; empty if there is no interval."""
    if low is None or high is None:
        return ""
    form = hundredths if rate else significant
    return f"[{form(low)}, {form(high)}]"


def accuracy_interval(low: float | None, high: float | None) -> str:
    """ "[97.81, 100.00]": an accuracy's interval in percent, cut off at 0 and 100, which Student's t does not know."""
    if low is None or high is None:
        return ""
    return interval(max(low, 0.0), min(high, 1.0), rate=True)


def duration(seconds: float) -> str:
    """ "0.42 s", "38 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(n: int, noun: str) -> str:
    """ "1 seed", "6 seeds", "2 studies", "60,000 images"."""
    plural = noun if n == 1 else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {plural}"


def outcome(record: Record) -> str:
    """How a trial ended: "done", "diverged in epoch 2, step 417, layer 1", "failed: out of memory"."""
    if record.status == "failed":
        return f"failed: {record.error or 'no reason was recorded'}"
    if record.status == "diverged":
        at = record.divergence
        if at is None:
            return "diverged"
        layer = "in the loss alone" if at.layer is None else f"layer {at.layer}"
        return f"diverged in epoch {at.epoch}, step {at.step}, {layer}"
    return "done"
