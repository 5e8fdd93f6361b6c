"""What is decided for each parameter of a module before anything is drawn, and the table that shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fanin.initializers.draw import Place
from fanin.initializers.module.slots import Slot
from fanin.initializers.noise import Shape

if TYPE_CHECKING:
    from fanin.choice import Choice


@dataclass(frozen=True)
class Decision:
    """One parameter of a module: what init_ does with it, and why.

    module, kind, parameter: path of the module, its class, the parameter's name. activation, found: what follows, and
    how that is known: "traced", "symbolic", "given", "not seen". scheme: "" where the parameter is left alone. std:
    the standard deviation that results, None where one number does not describe the entries.
    """

    module: str
    kind: str
    parameter: str
    shape: tuple[int, ...]
    fan_in: int | None = None
    fan_out: int | None = None
    activation: str = ""
    found: str = ""
    gain: float | None = None
    scheme: str = ""
    std: float | None = None
    note: str = ""

    @property
    def path(self) -> str:
        """The parameter's name from the root, as in `named_parameters`."""
        return f"{self.module}.{self.parameter}" if self.module else self.parameter


class Decisions(tuple[Decision, ...]):
    """The rows of a module's table, in order of traversal; as text, aligned columns."""

    def __str__(self) -> str:
        head = ("parameter", "kind", "shape", "fans", "activation", "gain", "scheme", "std", "note")
        return _aligned([head, *map(_cells, self)])

    def of(self, path: str) -> Decision:
        """The row of a parameter by its name from the root; KeyError if there is none."""
        for row in self:
            if row.path == path:
                return row
        raise KeyError(path)


def _cells(row: Decision) -> tuple[str, ...]:
    found = f"{row.activation or 'none'} ({row.found})" if row.found else ""
    return (
        row.path,
        row.kind,
        "x".join(map(str, row.shape)) or "()",
        f"{row.fan_in} -> {row.fan_out}" if row.fan_out is not None else "",
        found,
        "" if row.gain is None else f"{row.gain:.4g}",
        row.scheme or "-",
        "" if row.std is None else f"{row.std:.4g}",
        row.note,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


Scheme = Callable[..., Any]  # (noise, shape, *, fan_in, fan_out) -> Tensor


# whose entries are independent: no shape is wrong for them, and they draw once and only change what they drew
_INDEPENDENT = frozenset(
    {
        "default",
        "normal",
        "truncated_normal",
        "uniform",
        "variance_scaling",
        "lecun_uniform",
        "lecun_normal",
        "snn",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
        "mup",
        "critical",
    }
)
_EQUAL = frozenset({"zeros", "constant"})


@dataclass
class Step:
    """What will be done with one slot; residual rules change it before it is done.

    scheme: a catalogue's choice, a function of the user's with `options`, or None to leave it alone. factor: on what
    is drawn. fill: rather this constant. forget: what the rows of a forget gate get on top.
    """

    slot: Slot
    scheme: Choice | Scheme | None = None
    place: Place = field(default_factory=Place)
    activation: str = ""
    found: str = ""
    gain: float | None = None
    std: float | None = None
    factor: float = 1.0
    fill: float | None = None
    forget: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def choice(self) -> Choice | None:
        """The catalogue's choice, None for a scheme of the user's own."""
        return as_choice(self.scheme)

    @property
    def drawn(self) -> bool:
        """Whether a scheme sets it."""
        return self.scheme is not None and self.fill is None

    @property
    def independent(self) -> bool:
        """Whether its entries are independent draws."""
        return self.choice is not None and self.choice.name in _INDEPENDENT

    @property
    def groups(self) -> int:
        """How many groups of a convolution are drawn separately: each is a matrix, unless entries are independent."""
        alike = self.independent or (self.choice is not None and self.choice.name in _EQUAL)
        return 1 if alike else self.slot.groups

    @property
    def shape(self) -> Shape:
        """The shape that the scheme is called with."""
        rows, *rest = self.slot.shape or tuple(self.slot.tensor.shape)
        return (rows // self.groups, *rest)

    def row(self) -> Decision:
        """As a row of the table."""
        slot, product = self.slot, self.slot.role == "weight" and self.scheme is not None
        std = 0.0 if self.fill is not None or self.factor == 0 else self.std and self.std * self.factor
        return Decision(
            slot.module,
            slot.kind,
            slot.parameter,
            tuple(slot.tensor.shape),
            slot.fan_in if self.scheme is not None else None,
            slot.fan_out if product else None,
            self.activation,
            self.found,
            self.gain,
            _scheme_name(self),
            std,
            "; ".join(self.notes),
        )


def as_choice(scheme: Choice | Scheme | None) -> Choice | None:
    """A scheme if it is a catalogue's choice, else None."""
    from fanin.choice import Choice  # pydantic, only where it is wanted

    return scheme if isinstance(scheme, Choice) else None


def _scheme_name(step: Step) -> str:
    if step.fill is not None:
        return f"{step.fill:g}"
    return "" if step.scheme is None else title(step.scheme)


def title(scheme: Choice | Scheme) -> str:
    """How a table names a scheme."""
    name = getattr(scheme, "name", None) or getattr(scheme, "__name__", None)
    return name if isinstance(name, str) else type(scheme).__name__
