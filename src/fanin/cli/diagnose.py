"""`fanin diagnose` and `fanin lr-find`."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from fanin.cli.numbers import Whole, check_range
from fanin.cli.paths import Place, check_file
from fanin.errors import FaninError

FOUND = 3  # the exit code where there are findings, and --fail-on-finding

Flag = Annotated[bool, Parameter(negative=())]


def diagnose(
    model: str,
    /,
    *,
    data: str,
    data_dir: Place | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    steps: Whole = 100,
    epochs: Whole | None = None,
    batch_size: Whole | None = None,
    seed: Whole = 0,
    html: Place | None = None,
    json: Flag = False,
    fail_on_finding: Flag = False,
) -> int:
    """Say what keeps a network from learning its data, and what to do; nothing where it trains as well as it could.

    The model is copied, never changed. What is named as MODULE:ATTR is Python code, which is run.

    Parameters
    ----------
    model
        MODULE:ATTR: an nn.Module, its class, or a function that makes one; class and function take no arguments.
    data
        mnist, digits, a file, a folder (`fanin list datasets`), or MODULE:ATTR: a DataLoader, a Dataset, (X, y),
        (X, y, X_eval, y_eval), or a function that returns one.
    data_dir
        Where MNIST or a relative data file lies.
    loss
        cross_entropy, nll, mse, l1, bce, bce_with_logits, huber or MODULE:ATTR; by default what the targets call for.
    optimizer
        A name with options, such as sgd,lr=0.1,momentum=0.9, or MODULE:ATTR (a function of parameters); by default
        Adam.
    lr
        The learning rate, instead of the optimiser's own.
    steps
        Of a short run, and of each experiment; 0 looks at one batch forward and back.
    epochs
        How many are planned, to tell whether they are too few.
    batch_size
        Rows in a batch of data that come without any; by default 32.
    seed
        Keys initial weights and the order of the data.
    html
        Also write everything, with charts, as one HTML page.
    json
        Print the diagnosis as JSON on standard output, and nothing else there.
    fail_on_finding
        Exit with code 3 if anything is found, for tests of a project of yours.
    """
    check_file("--html", html, "page.html")
    check_range("--steps", steps, 0)
    check_range("--epochs", epochs, 1)
    check_range("--seed", seed, 0)
    from fanin.cli.progress import stderr  # `--help` stays fast
    from fanin.cli.training import given

    console = stderr()
    g = given(model, data, data_dir=data_dir, loss=loss, optimizer=optimizer, lr=lr, batch_size=batch_size, seed=seed,
              console=console)  # fmt: skip
    from fanin.diagnosis import diagnose as look

    found = look(
        g.model,
        g.batches,
        loss=g.loss,
        optimizer=g.optimizer,
        eval_data=g.evaluation,
        steps=steps,
        seed=seed,
        epochs=epochs,
    )
    plain = found.to_dict()
    if json:
        _dump(plain)
    else:
        from rich.console import Console

        from fanin.report.diagnosis import print_diagnosis

        print_diagnosis(plain, Console())
    if html is not None:
        from fanin.report.diagnosis.page import write_diagnosis

        console.print(f"Page: {write_diagnosis(plain, html)}", markup=False, highlight=False, soft_wrap=True)
    return FOUND if plain["findings"] and fail_on_finding else 0


def lr_find(
    model: str,
    /,
    *,
    data: str,
    data_dir: Place | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    seeds: Whole = 5,
    low: float = 1e-7,
    high: float = 10.0,
    steps: Whole = 100,
    batch_size: Whole | None = None,
    json: Flag = False,
) -> int:
    """Find a learning rate: a range test over several orders of the data, and how far they agree.

    The model is copied, never changed. What is named as MODULE:ATTR is Python code, which is run.

    Parameters
    ----------
    model
        MODULE:ATTR: an nn.Module, its class, or a function that makes one; class and function take no arguments.
    data
        mnist, digits, a file, a folder (`fanin list datasets`), or MODULE:ATTR, as in `fanin diagnose`.
    data_dir
        Where MNIST or a relative data file lies.
    loss
        cross_entropy, nll, mse, l1, bce, bce_with_logits, huber or MODULE:ATTR; by default what the targets call for.
    optimizer
        A name with options, such as sgd,lr=0.1,momentum=0.9, or MODULE:ATTR (a function of parameters); by default
        Adam.
    seeds
        How many orders of the data.
    low
        The first learning rate.
    high
        The last one.
    steps
        Rates between them, a step of the optimiser at each.
    batch_size
        Rows in a batch of data that come without any; by default 32.
    json
        Print all numbers as JSON on standard output, and nothing else there.
    """
    check_range("--seeds", seeds, 1)
    check_range("--steps", steps, 10)
    if not 0 < low < high < math.inf:
        raise FaninError(f"--low and --high: expected 0 < low < high; got {low:g} and {high:g}")
    from fanin.cli.progress import stderr  # `--help` stays fast
    from fanin.cli.training import given

    g = given(model, data, data_dir=data_dir, loss=loss, optimizer=optimizer, lr=None, batch_size=batch_size, seed=0,
              console=stderr())  # fmt: skip
    from fanin.diagnosis.lr_find import lr_find as find

    found = find(g.model, g.batches, loss=g.loss, optimizer=g.optimizer, seeds=seeds, low=low, high=high, steps=steps)
    plain = found.to_dict()
    if json:
        _dump(plain)
    else:
        from rich.console import Console

        from fanin.report.diagnosis import print_rates

        print_rates(plain | {"words": str(found)}, Console())
    return 0


def _dump(plain: dict[str, Any]) -> None:
    from json import dump

    dump(_finite(plain), sys.stdout, indent=1, allow_nan=False)
    print()


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
