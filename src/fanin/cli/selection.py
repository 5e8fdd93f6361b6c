"""Which studies and arms of a folder a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fanin.errors import FaninError, nearest

if TYPE_CHECKING:
    from fanin.store import StoredStudy
    from fanin.study import Study

_MOST_LISTED = 40


def selected(stored: Sequence[StoredStudy], studies: Sequence[str], arms: Sequence[str]) -> list[StoredStudy]:
    """The studies that are named, with the arms that are named, in that order; where none is named, all.

    FaninError, with the nearest spelling, for a name that nothing has.
    """
    if studies:
        names = [each.study.name for each in stored]
        wanted = {name for word in studies for name in _named(word, names)}
        stored = [each for each in stored if each.study.name in wanted]
    if not arms:
        return list(stored)
    names = [arm.name for each in stored for arm in each.study.arms]
    for name in arms:
        if name not in names:
            raise _unknown("--arm", name, names)
    return [replace(each, study=_narrowed(each.study, arms)) for each in stored if _has_one(each.study, arms)]


def _named(word: str, names: Sequence[str]) -> list[str]:
    """The studies that a word means: lab9/nn, or else nn, or else, by either, its variants lab9/nn [epochs=5]."""
    for level in range(3):
        if found := [name for name in names if word in _forms(name)[level]]:
            return found
    raise _unknown("--study", word, names)


def _forms(name: str) -> tuple[tuple[str, ...], ...]:
    """What a study may be called, level by level: lab9/nn [b] is also nn [b], or else lab9/nn or nn."""
    base, bracket, variant = name.partition(" [")
    end = base.rpartition("/")[2]
    return (name,), (end + bracket + variant,), (base, end)


def _unknown(flag: str, name: str, names: Sequence[str]) -> FaninError:
    listed = list(map(repr, dict.fromkeys(names)))
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    words = ", ".join(listed[:_MOST_LISTED]) + more
    return FaninError(f"{flag}: expected one of {words}; got {name!r}{nearest(name, names)}")


def _has_one(study: Study, arms: Sequence[str]) -> bool:
    return any(arm.name in arms for arm in study.arms)


def _narrowed(study: Study, arms: Sequence[str]) -> Study:
    """The study as if it had these arms alone: questions about others go, and so does the map that they filled."""
    kept = [study.arm(name) for name in dict.fromkeys(arms) if any(arm.name == name for arm in study.arms)]
    known = {arm.name for arm in kept}
    questions = [question for question in study.questions if {question.a.arm, question.b.arm} <= known]
    return study.changed(arms=tuple(kept), questions=tuple(questions), grid=())
