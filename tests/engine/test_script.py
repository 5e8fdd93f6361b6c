"""A trial as a stand-alone program: the trial's outputs to the bit, the engine's training by its own loop, no fanin."""

from __future__ import annotations

import ast
import importlib.util
import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fanin.catalogue import ACTIVATIONS, CALIBRATIONS, OPTIMIZERS, SCHEDULES
from fanin.datasets import Dataset, Split, atomic
from fanin.engine.data import Data
from fanin.engine.export import load_weights, packed, to_sequential
from fanin.engine.schedules import factor
from fanin.engine.train import train
from fanin.errors import DataError, FaninError, StoreError
from fanin.recipe import Recipe, Trial
from fanin.script import export_script
from fanin.script.layout import inert
from fanin.script.training import schedule_source
from fanin.streams import Stream

DATA = oracle.problem(examples=100, features=6, classes=3, scale=0.5)
METADATA = {"trial": "x", "seed": "3", "data": "made up", "fingerprint": "0123", "scale": "0.5"}
TINY = {"hidden": (5, 4), "batch_size": 16, "epochs": 1}
VARIANTS = {
    "plain": {},
    "batch": {"normalization": "batch"},
    "dropout": {"dropout": 0.3},
    "both": {"normalization": "batch", "dropout": 0.25},
}


def kept(
    folder: Path, name: str = "kept", *, data: Data = DATA, metadata: dict[str, str] = METADATA, **fields: Any
) -> Path:
    """The file of a trial that was trained."""
    recipe = Recipe(**TINY | fields)
    path = folder / "weights" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(recipe, train([Trial(recipe, 3)], ["x"], data)[0].state, metadata))
    return path


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs, of every activation, variant, optimiser and schedule, with the logits they must give."""
    folder = tmp_path_factory.mktemp("programs")
    torch.set_num_threads(1)
    settings = {f"{a}_{v}": {"activation": a, **fields} for a in ACTIVATIONS for v, fields in VARIANTS.items()}
    settings |= {f"by_{name}": {"optimizer": name, "loss": "mse", "dropout": 0.1} for name in OPTIMIZERS}
    settings |= {f"in_{name}": {"schedule": {"name": name, "warmup": 2}, "epochs": 4} for name in SCHEDULES}
    settings |= {
        "none_hidden": {"hidden": ()},
        "deep": {"hidden": (4,) * 5 + (3,), "normalization": "batch", "activation": "gelu"},
        "sloped": {"activation": {"name": "leaky_relu", "negative_slope": 0.3}, "labels": 40, "outputs": 7},
        "widths_far_apart": {"hidden": tuple(range(1, 41))},
        "bf": {"precision": "bf16"},
    }
    for name, fields in settings.items():
        path = kept(folder, name, **fields)
        export_script(path, folder / f"{name}.py")
        np.save(folder / f"{name}.npy", load_weights(path)[0](DATA.test_inputs).detach().numpy())
    np.save(folder / "inputs.npy", DATA.test_inputs.numpy())
    return folder


WITHOUT_FANIN = """if True:  # python -c wants no indentation at its start
    import runpy, sys
    from pathlib import Path
    import numpy as np, torch

    class NoFanin:
        def find_spec(self, name, *rest):
            if name.partition(".")[0] == "fanin":
                raise ImportError("no fanin here")

    sys.meta_path.insert(0, NoFanin())
    try:
        import fanin
        raise SystemExit("fanin can be imported")
    except ImportError:
        pass
    torch.set_num_threads(1)
    inputs = torch.from_numpy(np.load("inputs.npy"))
    for path in sorted(Path().glob("*.py")):
        program = runpy.run_path(str(path))
        logits = program["trained"]()(inputs)
        expected = torch.from_numpy(np.load(path.with_suffix(".npy")))
        print(path.stem, torch.equal(logits, expected), torch.equal(logits, expected.nextafter(expected + 1)))
"""


def test_logits_are_the_trials_to_the_bit_where_there_is_no_fanin(
    programs: Path, run_strictly: Callable[..., str]
) -> None:
    lines = run_strictly("-c", WITHOUT_FANIN, folder=programs).splitlines()
    assert len(lines) == len(list(programs.glob("*.py"))) >= len(ACTIVATIONS) * len(VARIANTS) + len(OPTIMIZERS)
    assert [line for line in lines if not line.endswith("True False")] == []  # one bit more and they differ


def test_programs_are_as_formatters_and_linters_want_them(programs: Path) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not here: pip install 'fanin[lint]' to run this test")
    for command in (["format", "--check"], ["check", "--select", "E,F,W,I,B,UP,SIM,D1,ANN"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(programs)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_programs_are_short(programs: Path) -> None:
    lines = {path.stem: len(path.read_text().splitlines()) for path in programs.glob("*.py")}
    del lines["widths_far_apart"]
    assert max(lines.values()) <= 125, lines
    assert sorted(lines.values())[len(lines) // 2] <= 110


def test_modules_are_spelled_out(programs: Path) -> None:
    flat = ast.unparse(ast.parse((programs / "gelu_both.py").read_text()))
    block = "nn.BatchNorm1d({0}, eps=1e-05, momentum=0.1), nn.GELU(), nn.Dropout(0.25)"
    first, second = (block.format(n) for n in (5, 4))
    assert f"nn.Sequential(nn.Linear(6, 5), {first}, nn.Linear(5, 4), {second}, nn.Linear(4, 3))" in flat
    assert "widths = [6, *[4] * 5, 3]" in (programs / "deep.py").read_text()
    assert "nn.LeakyReLU(negative_slope=0.3)" in (programs / "sloped.py").read_text()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"init": "he_normal", "bias_init": "zeros", "normalization": "batch"},
        {"init": "random_asymmetric", "hidden": (4,) * 6},
        {"init": "orthogonal", "hidden": ()},
        {"init": "looks_linear", "outputs": 5, "dropout": 0.2},
    ],
    ids=str,
)
def test_the_start_is_what_the_seed_drew(fields: dict[str, Any], tmp_path: Path) -> None:
    _, _, start = export_script(kept(tmp_path, **fields), tmp_path / "program.py")
    trial = Trial(Recipe(**TINY | fields), 3)
    drawn = to_sequential(trial.recipe, oracle.start_of(trial, DATA, torch.float32)).state_dict()
    written = load_file(start)
    assert written.keys() == drawn.keys()
    assert all(torch.equal(tensor, drawn[name]) for name, tensor in written.items())
    other = oracle.start_of(Trial(trial.recipe, 4), DATA, torch.float32)
    assert not torch.equal(written["0.weight"], other["layers.0.weight"])


def dataset() -> Dataset:
    """DATA, as a data set with a fingerprint."""
    train_split, test_split = (
        Split(x.numpy(), y.numpy())
        for x, y in ((DATA.train_inputs, DATA.train_labels), (DATA.test_inputs, DATA.test_labels))
    )
    names = ("a", "b", "c")
    return Dataset("made up", train_split, test_split, classes=names, scale=0.5, image_shape=None, source="a test")


PREPARED: list[dict[str, Any]] = [
    {"calibration": name} for name in CALIBRATIONS if name not in ("gradinit", "metainit")
]
PREPARED += [{"calibration": {"name": name, "steps": 5}} for name in ("gradinit", "metainit")]
PREPARED += [{"calibration": "lsuv", "normalization": "batch"}, {"pretraining": "autoencoder"}]
PREPARED += [{"pretraining": {"name": "dbn", "epochs": 2}, "activation": "sigmoid"}]


@pytest.mark.parametrize("fields", PREPARED, ids=str)
def test_the_start_after_calibration_or_pre_training(fields: dict[str, Any], tmp_path: Path) -> None:
    """A training whose steps are too small to move a float32 but from zero ends where it has begun."""
    fields = {"activation": "tanh", "optimizer": {"name": "sgd", "lr": 1e-35}} | fields
    data = dataset()
    path = kept(tmp_path, metadata=METADATA | {"fingerprint": data.fingerprint}, **fields)
    program, weights, start = export_script(path, tmp_path / "program.py", dataset=data)
    first, last = load_file(start), load_file(weights)
    parameters = [name for name in first if "running" not in name]
    assert first.keys() == last.keys()
    assert max(float((first[name] - last[name]).abs().max()) for name in parameters) < 1e-30
    trial = Trial(load_recipe(path), 3)
    drawn = to_sequential(trial.recipe, oracle.start_of(trial, DATA, torch.float32)).state_dict()
    left_alone = all(torch.equal(drawn[name], first[name]) for name in parameters)
    assert left_alone == (fields.get("calibration") == "none")
    assert ("; then " in program.read_text()) != left_alone


def load_recipe(path: Path) -> Recipe:
    return Recipe.from_dict(json.loads(load_weights(path)[1]["recipe"]))


def test_without_the_data_there_is_no_training(tmp_path: Path) -> None:
    paths = export_script(kept(tmp_path, calibration="lsuv"), tmp_path / "program.py")
    assert [path.name for path in paths] == ["program.py", "program.safetensors"]
    program = runpy.run_path(str(paths[0]))
    assert "train" not in program
    assert "were calibrated by lsuv on the trial's data, which were not at hand" in " ".join(program["__doc__"].split())
    assert program["trained"]()(DATA.test_inputs).shape == (23, 3)
    with pytest.raises(DataError, match="expected 0123, the data of the trial"):
        export_script(tmp_path / "weights" / "kept.safetensors", tmp_path / "other.py", dataset=dataset())


# training: the program's own loop on the trial's batches, masks and labels, in float64

OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    "adadelta": {"lr": 0.5, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.02},
    "adagrad": {"lr": 0.02, "lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-7},
    "adam": {"lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-5, "amsgrad": True},
    "adamw": {"lr": 0.01},
    "sparse_adam": {"lr": 0.01, "eps": 1e-6},
    "adamax": {"betas": [0.7, 0.9]},
    "asgd": {"lr": 0.05, "lambd": 0.01, "alpha": 0.5, "t0": 3.0},
    "lbfgs": {"lr": 0.01, "max_iter": 2, "history_size": 3},
    "rmsprop": {"alpha": 0.9, "momentum": 0.5, "centered": True},
    "rprop": {"etas": [0.4, 1.1], "step_sizes": [1e-5, 0.1]},
}
RATES = [
    {"name": "constant", "warmup": 1},
    {"name": "step", "every": 1, "gamma": 0.5},
    {"name": "exponential", "gamma": 0.7, "warmup": 2},
    {"name": "linear", "final": 0.2},
    {"name": "cosine", "warmup": 1},
]
TRAININGS: list[dict[str, Any]] = [
    {"optimizer": {"name": name, **options}, "schedule": schedule}
    for name, options in OPTIONS.items()
    for schedule in ([{"name": "constant"}] if name == "rprop" else RATES)
]
TRAININGS += [
    {"loss": "mse", "outputs": 5},
    {"loss": "mse", "optimizer": {"name": "lbfgs", "line_search_fn": "strong_wolfe"}, "batch_size": 100, "epochs": 1},
    {"normalization": "batch", "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}},
    {"dropout": 0.25},
    {"dropout": 0.5, "labels": 53, "hidden": (5, 4, 5, 4)},
]


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_the_program(trial: Trial, path: Path, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What the program's train() comes to where torch's generator gives the trial's own batches, labels and masks."""
    recipe = trial.recipe
    _, _, start = export_script(path, path.parents[1] / "program.py", force=True)
    save_file(to_sequential(recipe, oracle.start_of(trial, DATA, torch.float64)).state_dict(), start)
    epochs = [("order", epoch) for epoch in range(1, recipe.epochs + 1)]
    drawn = iter([("labels", 0), *epochs] if recipe.labels else epochs)
    masks = iter((e, s, i) for e in range(1, recipe.epochs + 1) for s in range(100) for i in range(len(recipe.hidden)))
    steps = (recipe.labels or 100) // recipe.batch_size
    masks = (at for at in masks if at[1] < steps)

    def permutation(n: int) -> Tensor:
        purpose, epoch = next(drawn)
        return torch.from_numpy(Stream(trial.seed, purpose, epoch=epoch).permutation(n))

    def dropout(h: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
        assert training
        assert p == recipe.dropout
        return h * oracle.mask(trial, *next(masks), tuple(h.shape))

    with patch.context() as patched:
        patched.setattr(torch, "randperm", permutation)
        patched.setattr(nn.functional, "dropout", dropout)
        net = runpy.run_path(str(start.with_suffix("").with_suffix(".py")))["train"](
            DATA.train_inputs.double() * DATA.scale, DATA.train_labels
        )
    assert next(drawn, None) is None
    assert recipe.dropout == 0 or next(masks, None) is None
    assert not net.training
    return oracle.named(net)


@pytest.mark.parametrize(
    "fields", TRAININGS, ids=lambda f: "-".join(str(v.get("name", v) if isinstance(v, dict) else v) for v in f.values())
)
def test_its_loop_is_the_engines(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_float64: None, capsys: Any
) -> None:
    fields = {"epochs": 3, "activation": "tanh"} | fields
    torch.set_default_dtype(torch.float32)
    path = kept(tmp_path, **fields)
    torch.set_default_dtype(torch.float64)
    trial = Trial(load_recipe(path), 3)
    engine = oracle.engine(trial, DATA)
    written = oracle.Run(engine.losses, by_the_program(trial, path, monkeypatch))
    oracle.agree(written, engine, tolerance=1e-9)
    per_epoch = np.array(engine.losses).reshape(trial.recipe.epochs, -1).mean(1)
    assert capsys.readouterr().out == "".join(f"epoch {i}: loss {x:.4f}\n" for i, x in enumerate(per_epoch, 1))


@pytest.mark.parametrize(
    "other",
    [{"optimizer": {"name": "sgd", "lr": 0.101}}, {"schedule": "linear"}, {"loss": "mse"}, {"batch_size": 17}],
    ids=str,
)
def test_the_comparison_of_loops_can_fail(
    other: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_float64: None
) -> None:
    torch.set_default_dtype(torch.float32)
    fields = {"optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 2}
    path = kept(tmp_path, **fields | other)
    torch.set_default_dtype(torch.float64)
    engine = oracle.engine(Trial(Recipe(**TINY | fields), 3), DATA)
    state = by_the_program(Trial(load_recipe(path), 3), path, monkeypatch)
    with pytest.raises(AssertionError, match="relative differences"):
        oracle.agree(oracle.Run(engine.losses, state), engine, tolerance=1e-6)


@pytest.mark.parametrize("warmup", [0, 1, 3, 7, 9])
@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_on_the_learning_rate(name: str, warmup: int) -> None:
    options = {"linear": [{"final": 0.0}, {"final": 0.3}], "cosine": [{"final": 0.0}, {"final": 0.3}]}
    for more in options.get(name, [{}]):
        recipe = Recipe(schedule={"name": name, "warmup": warmup, **more}, epochs=7)
        scope: dict[str, Any] = {"math": __import__("math")}
        exec("\n".join(schedule_source(recipe)), scope)
        expected = [factor(recipe.schedule, epoch, 7) for epoch in range(1, 8)]
        assert [scope["lr_factor"](epoch) for epoch in range(7)] == pytest.approx(expected, rel=1e-14)


def test_options_at_torchs_default_are_not_written(tmp_path: Path) -> None:
    for name, expected in {
        "adam": "torch.optim.Adam(net.parameters(), lr=0.001)",
        "adamw": "torch.optim.AdamW(net.parameters(), lr=0.001)",
        "lbfgs": "torch.optim.LBFGS(net.parameters(), lr=1.0)",
        "sgd": "torch.optim.SGD(net.parameters(), lr=0.001)",
    }.items():
        source = export_script(kept(tmp_path, optimizer=name), tmp_path / "program.py", force=True)[0].read_text()
        assert expected in source


def test_what_the_loop_cannot_keep_is_said(tmp_path: Path) -> None:
    fields = {"dropout": 0.2, "labels": 50, "precision": "bf16", "optimizer": "asgd"}
    source = " ".join(export_script(kept(tmp_path, **fields), tmp_path / "program.py")[0].read_text().split())
    for words in ("the dropout masks and which examples have labels", "bfloat16", "running weights", "no more labels"):
        assert words in source


@pytest.mark.parametrize("scale", [1.0, 1 / 255, 1 / 16, 0.3, 3.0, 5e-324, 1e300])
def test_the_scale_keeps_its_bits(scale: float, tmp_path: Path) -> None:
    path = kept(tmp_path, metadata=METADATA | {"scale": repr(scale)})
    assert runpy.run_path(str(export_script(path, tmp_path / "program.py")[0]))["SCALE"] == scale


# names from files are text, and stay text

HOSTILE = 'mine"""\nimport os\nos.abort()\n"""\\N{DIGIT ONE}\u202e\x1b[2J' + "x" * 200


def test_a_name_cannot_become_code(tmp_path: Path) -> None:
    plain = export_script(kept(tmp_path), tmp_path / "plain.py")[0]
    bad = kept(tmp_path, metadata=METADATA | {"data": HOSTILE, "fingerprint": HOSTILE})
    evil = export_script(bad, tmp_path / "evil.py")[0]
    assert all(c.isprintable() or c == "\n" for c in evil.read_text())
    trees = [ast.parse(path.read_text()) for path in (plain, evil)]
    assert ast.get_docstring(trees[0]) != ast.get_docstring(trees[1])
    assert [ast.dump(node) for node in trees[0].body[1:]] == [ast.dump(node) for node in trees[1].body[1:]]
    assert max(map(len, evil.read_text().splitlines())) <= 120
    bodies = [ast.parse(f'"""{text}"""').body for text in (inert(HOSTILE), HOSTILE)]
    assert [len(body) for body in bodies] == [1, 4]  # as it is given, it imports and calls


# what cannot be exported, and where it cannot be written


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("program", r"expected a file name that ends in \.py"),
        ("program.txt", r"expected a file name that ends in \.py"),
        ("torch.py", "hides the module torch"),
        ("random.py", "hides the module random"),
        ("weights/kept.py", "take the place of"),
        ("there.py", "there already; choose another name"),
        ("beside.py", "there already"),
        ("there.py/sub.py", "cannot be written"),
    ],
)
def test_names_that_will_not_do(out: str, message: str, tmp_path: Path) -> None:
    path = kept(tmp_path)
    (tmp_path / "there.py").write_text("mine")
    (tmp_path / "beside.start.safetensors").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FaninError, match=message):
        export_script(path, tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before
    assert load_weights(path)[1]["seed"] == "3"


def test_force_replaces_files_but_never_the_kept_weights(tmp_path: Path) -> None:
    path = kept(tmp_path)
    (tmp_path / "program.py").write_text("mine")
    export_script(path, tmp_path / "program.py", force=True)
    assert "def network" in (tmp_path / "program.py").read_text()
    with pytest.raises(StoreError, match="take the place of"):
        export_script(path, path.with_suffix(".py"), force=True)
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(StoreError, match="is a folder"):
        export_script(path, tmp_path / "folder.py", force=True)


def test_the_program_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written = kept(tmp_path), []
    monkeypatch.setattr(atomic, "write", lambda path, content: written.append(path.name))
    export_script(path, tmp_path / "program.py")
    assert written == ["program.start.safetensors", "program.safetensors", "program.py"]


def test_a_network_of_ones_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(packed(Recipe(model="models:cnn"), {"0.weight": torch.zeros(2, 2)}, METADATA))
    with pytest.raises(StoreError, match=r"a network of one's own; make that network yourself.*load_state_dict"):
        export_script(path, tmp_path / "program.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "many"}, "lack a seed and a scale"),
        ({"seed": "-1"}, "lack a seed and a scale"),
        ({"scale": "nan"}, "lack a seed and a scale"),
        ({"scale": "0"}, "lack a seed and a scale"),
        ({"recipe": json.dumps({"hidden": [1_000_000] * 100})}, "do not make a network"),
    ],
    ids=str,
)
def test_files_that_say_nonsense(change: dict[str, str], message: str, tmp_path: Path) -> None:
    path = kept(tmp_path)
    content = load_file(path)
    save_file(content, path, {"recipe": json.dumps(Recipe(**TINY).to_dict())} | METADATA | change)
    with pytest.raises(StoreError, match=message):
        export_script(path, tmp_path / "program.py")
    assert not (tmp_path / "program.py").exists()


def test_a_study_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    path = kept(tmp_path)
    assert "a trial whose study was not at hand" in export_script(path, tmp_path / "program.py")[0].read_text()
    with pytest.raises(StoreError, match="no study folder around it"):
        export_script(path, tmp_path / "other.py", study="mine")
