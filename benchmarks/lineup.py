"""The line-up: every way that is measured, what it needs, and where it stands in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from fanin.recipe import Recipe
from way import DEEP, NN, NN_BF16

Role = Literal["fanin", "peer", "bound"]
INSTALL = "pip install 'fanin[bench]'"


@dataclass(frozen=True)
class Entry:
    """One way. Ratios are taken to the first entry of role "fanin" or "bound" whose network is the same.

    train: "module:function"; needs: modules it cannot do without; alone: only in the layout of one process per core.
    """

    title: str
    library: str
    train: str
    role: Role = "peer"
    needs: tuple[str, ...] = ()
    alone: bool = False
    recipe: Recipe = NN
    members: int = 1
    precision: str = "float32"


def _own(title: str, function: str, recipe: Recipe = NN, precision: str = "float32") -> Entry:
    return Entry(title, "fanin", f"own:{function}", "fanin", alone=True, recipe=recipe, precision=precision)


def _bound(title: str, recipe: Recipe) -> Entry:
    return Entry(title, "bound", "bound:bound", "bound", alone=True, recipe=recipe)


def _jax(title: str, precision: str, members: int = 1, function: str = "epoch") -> Entry:
    return Entry(
        title,
        "JAX",
        f"peers.jax_scan:{function}",
        needs=("jax",),
        alone=members > 1 or function == "arm",
        members=members,
        precision=precision,
    )


def _torch(title: str, function: str, *, alone: bool = False) -> Entry:
    return Entry(title, "PyTorch", f"peers.pytorch:{function}", alone=alone)


def _vmap(title: str, members: int) -> Entry:
    return Entry(title, "torch.func.vmap", "peers.vmapped_torch:epoch", alone=True, members=members)


def _lightning(title: str, function: str, *, alone: bool) -> Entry:
    return Entry(title, "Lightning", f"peers.lightning_trainer:{function}", needs=("lightning",), alone=alone)


EPOCHS: tuple[Entry, ...] = (
    _own("fanin", "trained"),
    _own("fanin + evaluation", "evaluated"),
    _own("fanin bf16", "trained", NN_BF16, "bfloat16"),
    _torch("PyTorch, fanin's switches", "fused"),
    _torch("PyTorch, defaults", "eager"),
    _torch("the notes' DataLoader", "notes"),
    _vmap("torch.func.vmap, 2 members", 2),
    _vmap("torch.func.vmap, 8 members", 8),
    _lightning("Lightning", "loader", alone=False),
    _lightning("Lightning, batch by index", "indexed", alone=True),
    Entry("skorch", "skorch", "peers.skorch_fit:epoch", needs=("skorch",)),
    Entry("scikit-learn", "scikit-learn", "peers.scikit_learn:epoch"),
    _jax("JAX", "float32"),
    _jax("JAX, vmap of 2", "float32", 2),
    _jax("JAX, vmap of 4", "float32", 4),
    _jax("JAX bf16", "bfloat16"),
    _jax("JAX bf16, vmap of 2", "bfloat16", 2),
    _jax("JAX bf16, vmap of 4", "bfloat16", 4),
    Entry("Keras, JAX backend", "Keras", "peers.keras_fit:epoch", needs=("keras", "jax")),
    _bound("bound: dense products", NN),
    Entry("bound: fanin's products", "bound", "bound:own", "bound", alone=True),
    _own("fanin, deep", "trained", DEEP),
    _bound("bound, deep", DEEP),
)

ARMS: tuple[Entry, ...] = (
    _own("fanin", "arm"),
    _own("fanin bf16", "arm", NN_BF16, "bfloat16"),
    _torch("PyTorch, defaults", "arm", alone=True),
    _jax("JAX", "float32", function="arm"),
    _jax("JAX bf16", "bfloat16", function="arm"),
)


def installed(entries: Sequence[Entry]) -> list[Entry]:
    """Those whose libraries are there."""
    return [entry for entry in entries if not _missing(entry)]


def left_out(entries: Sequence[Entry]) -> str | None:
    """One line on the ways whose libraries are not there, and how to get them; None if nothing is left out."""
    titles = [entry.title for entry in entries if _missing(entry)]
    modules = sorted({module for entry in entries for module in _missing(entry)})
    if not titles:
        return None
    return f"left out, for {', '.join(modules)} cannot be imported ({INSTALL}): {'; '.join(titles)}"


def _missing(entry: Entry) -> list[str]:
    return [module for module in entry.needs if find_spec(module) is None]
