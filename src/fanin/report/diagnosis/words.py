"""What page, fragment and terminal say alike about a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fanin.finding import CAUSES
from fanin.report.words import count, significant

Plain = Mapping[str, Any]
GIVEN = "as given"
SURE, LIKELY = 0.85, 0.6  # confidences from which a finding is called so


def headline(plain: Plain) -> str:
    """How it stands, in a sentence."""
    found = plain["findings"]
    if not found:  # only where something else was tried can that be said
        return "Nothing found: it trains as well as it could." if plain.get("experiments") else "Nothing found."
    first = found[0]
    more = f", and {count(len(found) - 1, 'more finding')}" if len(found) > 1 else ""
    return f"{capital(meaning(first['cause']))}{more}."


def meaning(cause: str) -> str:
    """What a cause is, in a line; an unknown one is its own."""
    return CAUSES.get(cause, cause)


def title_of(finding: Plain) -> str:
    """ "Learning rate high", "Dead units in body.2"."""
    layer = finding.get("layer") or ""
    where = f" in {'layer ' if layer[:1].isdigit() else ''}{layer}" if layer else ""
    return f"{capital(finding['cause'].replace('-', ' '))}{where}"


def confidence(finding: Plain) -> str:
    """ "likely, 70 %"."""
    share = finding["confidence"]
    word = "sure" if share >= SURE else "likely" if share >= LIKELY else "possible"
    return f"{word}, {100 * share:.0f} %"


def held_against(finding: Plain) -> str:
    """ "measured 0.85, held against 0.3"; empty for a fact without a number."""
    value, threshold = finding.get("value"), finding.get("threshold")
    if not _number(value):
        return ""
    against = f", held against {significant(threshold)}" if _number(threshold) else ""
    return f"measured {significant(value)}{against}"


def code_of(finding: Plain) -> tuple[str, str]:
    """The remedy as (words, code): the code of its fix, and the words unless they are the same."""
    code = finding["fix"]["code"] if finding.get("fix") else ""
    return ("" if finding["remedy"] == code else finding["remedy"]), code


def ranked_experiments(plain: Plain) -> list[tuple[str, float]]:
    """(name, share learnt): as given first, then the best first."""
    made = dict(plain.get("experiments") or {})
    first = [(GIVEN, made.pop(GIVEN))] if GIVEN in made else []
    return [*first, *sorted(made.items(), key=lambda item: -item[1])]


def curve(plain: Plain) -> list[tuple[float, float]]:
    """(step, loss) of the losses, if there are any: a list, or means over `stride` steps each."""
    losses = plain.get("losses") or []
    stride, values = (losses["stride"], losses["values"]) if isinstance(losses, Mapping) else (1, losses)
    return [(stride * (i + 0.5) + 0.5, v) for i, v in enumerate(values) if _number(v)]


def capital(words: str) -> str:
    """With a capital first letter, but for code (`nn.Softmax`, `lr = 0.1`)."""
    first, _, rest = words.partition(" ")
    return words if not first.isalpha() or rest.startswith("=") else words[:1].upper() + words[1:]


def percent(share: float) -> str:
    """ "64 %", with a no-break space."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def listed(values: Sequence[float]) -> list[float]:
    """Those that are finite."""
    return [v for v in values if math.isfinite(v)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
