"""The command line: one thin function per command; what it does lives in the rooms above."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from cyclopts import App, CycloptsError, UnusedCliTokensError

from fanin.cli.diagnose import diagnose, lr_find
from fanin.cli.doctor import doctor
from fanin.cli.explain import explain
from fanin.cli.export import export
from fanin.cli.init import show
from fanin.cli.listing import list_names
from fanin.cli.predict import predict
from fanin.cli.pretrain import pretrain
from fanin.cli.propagate import propagate
from fanin.cli.prove import prove
from fanin.cli.results import report, results
from fanin.cli.run import run
from fanin.cli.sample import sample
from fanin.errors import FaninError

DONE, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="fanin",
    help="Tells whether a neural network can train, why it cannot, and proves the fix.",
    help_format="plaintext",
    help_epilogue=(
        "Examples:\n  fanin run lab9 --data digits\n  fanin run lab9/nn --seeds 12 --vary init=zeros,xavier_uniform"
    ),
    result_action="return_value",
)


def _command(function: Callable[..., int], name: str, first: str, second: str) -> None:
    app.command(function, name=name, help_epilogue=f"Examples:\n  {first}\n  {second}")


_command(run, "run", "fanin run lab9 --data mnist", "fanin run lab9/nn --set lr=0.01 --vary init=zeros,xavier_uniform")
_command(list_names, "list", "fanin list studies", "fanin list optimizers")
_command(
    results, "results", "fanin results runs/lab9-mnist", "fanin results runs/lab9-mnist --study init --arm zeros --json"
)
_command(report, "report", "fanin report runs/lab9-mnist", "fanin report runs/lab9-mnist --out lab9.html")
_command(
    predict,
    "predict",
    "fanin predict runs/lab9-mnist",
    'fanin predict runs/lab9-mnist --arm "dropout 0.3" --image digit.png --json',
)
_command(
    export,
    "export",
    "fanin export runs/lab9-mnist",
    'fanin export runs/lab9-mnist --arm "dropout 0.3" --out dropout.py',
)
_command(
    propagate,
    "propagate",
    "fanin propagate --hidden 256x30 --activation tanh,relu --init xavier_uniform,kaiming_normal",
    "fanin propagate --activation gelu --init critical --bias-init '{name = \"normal\", std = 0.4}' --out page.html",
)
_command(
    diagnose,
    "diagnose",
    "fanin diagnose models:make --data digits",
    "fanin diagnose models:make --data mnist --optimizer sgd,lr=0.1 --html page.html",
)
_command(
    lr_find,
    "lr-find",
    "fanin lr-find models:make --data digits",
    "fanin lr-find models:make --data mnist --optimizer sgd --seeds 8",
)
_command(
    prove,
    "prove",
    "fanin prove models:make lr=0.01 --data digits",
    "fanin prove models:make init=kaiming_normal normalization --data mnist --seeds 12",
)
_command(
    explain,
    "explain",
    'fanin explain lab9/quirks "softmax, functional" "softmax, class"',
    "fanin explain runs/mine ARM_A two.toml::ARM_B",
)
_command(
    pretrain,
    "pretrain",
    "fanin pretrain --data mnist --layers 500,500,2000",
    "fanin pretrain --layers 500 --binarize sample --negative pcd --ais 1000x100",
)
_command(
    sample,
    "sample",
    "fanin sample runs/pretrain-dbn-mnist",
    "fanin sample runs/pretrain-dbn-mnist --layer 1 --steps 10000 --out samples.png",
)

init = App(
    name="init",
    help="Initialisers: what they are, and what they do.",
    help_format="plaintext",
    help_epilogue="Examples:\n  fanin init show kaiming_normal critical\n  fanin list initializers",
)
init.command(
    show,
    name="show",
    help_epilogue="Examples:\n  fanin init show kaiming_normal critical\n  fanin init show mup --activation gelu",
)
app.command(init)

_command(doctor, "doctor", "fanin doctor", "fanin doctor --data-dir ~/data")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 some trials failed, 2 usage, 130 interrupted."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup is to be obeyed
            signal.signal(number, _as_interrupt)
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _complain(f"{_words(error)}\nTry `{_help_of(arguments)}`.")
        code = USAGE
    except FaninError as error:
        _complain(str(error))
        code = USAGE
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        code = DONE
    sys.exit(code or DONE)


def _words(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"expected no more arguments; got {', '.join(map(repr, error.unused_tokens or []))}"
    return str(error)


def _help_of(arguments: Sequence[str] | None) -> str:
    """The help of the command that was meant, or of all."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return f"fanin {given[0]} --help" if given and given[0] in app else "fanin --help"


def _complain(message: str) -> None:
    if sys.stderr is not None:  # closed: print would take standard output
        with suppress(OSError, ValueError):  # a full disk or a closed stream: the exit code tells
            print(f"fanin: {message}", file=sys.stderr)


def _as_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
