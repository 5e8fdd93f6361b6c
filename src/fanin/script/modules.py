"""The source of a function that builds an nn.Sequential, every module spelled out; of a deep one in a loop."""

from __future__ import annotations

from itertools import groupby

from torch import nn

from fanin.script.layout import docstring, fitted

_SPELLED = 3  # hidden layers; more are a loop over their widths


def sizes_of(net: nn.Sequential) -> list[int]:
    """Widths of an nn.Sequential of Linear layers, from input to output."""
    linears = [module for module in net if isinstance(module, nn.Linear)]
    return [linears[0].in_features, *(linear.out_features for linear in linears)]


def is_deep(net: nn.Sequential) -> bool:
    """Whether the source is a loop, which wants itertools.pairwise."""
    return len(sizes_of(net)) - 2 > _SPELLED


def network_source(net: nn.Sequential) -> list[str]:
    """The lines of `def network() -> nn.Sequential`: modules of the same kinds and sizes, freshly drawn."""
    sizes = sizes_of(net)
    hidden = len(sizes) - 2
    layers = f"{hidden or 'no'} hidden layer{'' if hidden == 1 else 's'}"
    return [
        "def network() -> nn.Sequential:",
        *docstring(f"{sizes[0]} inputs, {layers}, {sizes[-1]} outputs."),
        *(_looped(net, sizes) if is_deep(net) else _spelled(net)),
    ]


def _spelled(net: nn.Sequential) -> list[str]:
    modules = [_module(module) for module in net]
    return ["    return nn.Sequential(", *(f"        {module}," for module in modules), "    )"]


def _looped(net: nn.Sequential, sizes: list[int]) -> list[str]:
    """All hidden layers are of one kind: the modules up to the second Linear."""
    modules = list(net)
    second = [i for i, module in enumerate(modules) if isinstance(module, nn.Linear)][1]
    block = [_module(module, "fan_in", "fan_out") for module in modules[:second]]
    return [
        *fitted("widths = [", _runs(sizes[:-1]), "]", indent=4),
        "    layers: list[nn.Module] = []",
        "    for fan_in, fan_out in pairwise(widths):",
        *fitted("layers += [", block, "]", indent=8),
        f"    return nn.Sequential(*layers, {_module(modules[-1])})",
    ]


def _runs(widths: list[int]) -> list[str]:
    """[784, 256, 256, 256] as ["784", "*[256] * 3"]."""
    counted = [(width, len(list(run))) for width, run in groupby(widths)]
    return [f"*[{width}] * {n}" if n > 1 else str(width) for width, n in counted]


def _module(module: nn.Module, fan_in: str | None = None, fan_out: str | None = None) -> str:
    """The call that makes such a module, with these names in place of its sizes."""
    if isinstance(module, nn.Linear):
        return f"nn.Linear({fan_in or module.in_features}, {fan_out or module.out_features})"
    if isinstance(module, nn.BatchNorm1d):
        return f"nn.BatchNorm1d({fan_out or module.num_features}, eps={module.eps}, momentum={module.momentum})"
    if isinstance(module, nn.Dropout):
        return f"nn.Dropout({module.p})"
    kind = type(module)
    options = "" if repr(kind()) == repr(module) else module.extra_repr()  # torch writes them as keyword arguments
    return f"nn.{kind.__name__}({options})"
