"""calibrate_: its arguments, its report, and that it leaves no trace but the weights."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.catalogue import CALIBRATIONS
from fanin.initializers.calibrate import METHODS, Calibration, Change, calibrate_

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, dict[str, Any]] = {
    "lsuv": {},
    "within_layer": {},
    "jacobian": {},
    "gradinit": {"steps": 2},
    "metainit": {"steps": 2},
}
LABELS = torch.arange(12) % 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def inputs(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def run(module: nn.Module, batch: Any, method: str, **more: Any) -> Calibration:
    targets = {"targets": LABELS} if method == "gradinit" and "loss" not in more else {}
    return calibrate_(module, batch, method, **({"generator": seeded()} | targets | QUICK[method] | more))


class Untidy(nn.Module):
    """Batch norm, dropout, buffers that are None and assigned anew, a mode that is switched, an in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("absent", None)
        self.fails_after = 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        self.absent = x
        x = functional.relu(self.norm(self.first(x)), inplace=True)
        x = self.last(self.drop(x))
        self.drop.eval()
        if self.calls > self.fails_after:
            raise RuntimeError("half-way")
        return x


def trace_of(module: nn.Module) -> dict[str, Any]:
    """Everything that a calibration might disturb, the weights apart."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return {
        "modes": [m.training for m in module.modules()],
        "buffers": [
            (n, id(b), None if b is None else b.clone()) for m in module.modules() for n, b in m._buffers.items()
        ],
        "hooks": [list(getattr(m, h).items()) for m in module.modules() for h in hooks],
        "flags": [p.requires_grad for p in module.parameters()],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in module.parameters()],
        "identities": [id(p) for p in module.parameters()],
        "random": torch.random.get_rng_state().clone(),
        "grad mode": torch.is_grad_enabled(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def untidy() -> nn.Module:
    module = drawn(Untidy)
    module.norm.eval()
    module.last.register_forward_hook(lambda *_: None)
    module.first.weight.grad = torch.ones(8, 5)
    module.norm.bias.requires_grad_(False)
    return module


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("caller", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_leaves_no_trace_but_the_weights(method: str, caller: Any) -> None:
    module, batch = untidy(), inputs(12, 5)
    with caller():
        before, weights = trace_of(module), weights_of(module)
        report = run(module, batch, method)
        assert same(trace_of(module), before)
    assert report.method == method
    assert not same(weights_of(module), weights)
    assert torch.equal(module.norm.bias, weights["norm.bias"])  # frozen


@pytest.mark.parametrize("method", QUICK)
def test_puts_everything_back_if_the_module_raises(method: str) -> None:
    module = untidy()
    module.fails_after = 0 if method not in ("gradinit", "metainit") else 4
    seen: list[dict[str, Tensor]] = []
    module.drop.register_forward_hook(lambda *_: seen.append(weights_of(module)))
    before, weights = trace_of(module), weights_of(module)
    with pytest.raises(RuntimeError, match="half-way"):
        run(module, inputs(12, 5), method, **({"steps": 9} if method in ("gradinit", "metainit") else {}))
    assert same(trace_of(module), before)
    assert same(weights_of(module), weights)
    if method not in ("jacobian", "gradinit"):  # they change their first weight, or any, only after that place
        assert not same(seen[-1], weights)


def test_the_comparison_of_traces_can_fail() -> None:
    module, batch = untidy(), inputs(12, 5)
    before = trace_of(module)
    assert same(trace_of(module), before)
    damages: list[Callable[[], object]] = [
        module.norm.train,
        lambda: module.norm.running_mean.add_(1),
        lambda: module(batch),
        lambda: module.first.register_forward_hook(lambda *_: None),
        lambda: module.last.weight.requires_grad_(False),
        lambda: module.first.weight.grad.add_(1),
        lambda: torch.rand(1),
    ]
    with torch.random.fork_rng():
        for damage in damages:
            before = trace_of(module)
            damage()
            assert not same(trace_of(module), before)


@pytest.mark.parametrize("method", QUICK)
def test_follows_the_generator_and_nothing_else(method: str) -> None:
    def weights(seed: int, state: int) -> dict[str, Tensor]:
        module = drawn(Untidy)
        with torch.random.fork_rng():
            torch.manual_seed(state)
            run(module, inputs(12, 5), method, generator=seeded(seed))
        return weights_of(module)

    assert same(weights(3, 1), weights(3, 2))
    if method != "gradinit":  # whose two steps of Adam follow signs alone
        assert not same(weights(3, 1), weights(4, 1))


def test_without_a_generator_torchs_own_state_is_used_and_put_back() -> None:
    def weights(state: int) -> dict[str, Tensor]:
        module = drawn(Untidy)
        with torch.random.fork_rng():
            torch.manual_seed(state)
            run(module, inputs(12, 5), "lsuv", generator=None)
            first = torch.rand(1)
            torch.manual_seed(state)
            assert torch.equal(first, torch.rand(1))
        return weights_of(module)

    assert same(weights(1), weights(1))
    assert not same(weights(1), weights(2))


def test_successive_calls_with_one_generator_differ() -> None:
    generator = seeded()
    first, second = drawn(Untidy), drawn(Untidy)
    run(first, inputs(12, 5), "lsuv", generator=generator)
    run(second, inputs(12, 5), "lsuv", generator=generator)
    assert not same(weights_of(first), weights_of(second))


@pytest.mark.parametrize("method", QUICK)
def test_a_dry_run_measures_and_changes_nothing(method: str) -> None:
    module = untidy()
    before, weights = trace_of(module), weights_of(module)
    report = run(module, inputs(12, 5), method, dry_run=True)
    assert same(trace_of(module), before)
    assert same(weights_of(module), weights)
    assert report == run(module, inputs(12, 5), method)  # what it would have done
    assert not same(weights_of(module), weights)


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_are_kept(method: str, dtype: torch.dtype) -> None:
    module = drawn(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))).to(dtype)
    run(module, inputs(12, 5).to(dtype), method)
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert all(torch.isfinite(p).all() for p in module.parameters())


class Functional(nn.Module):
    """Activations as functions, a layer that runs twice, a matrix without a module, tuples in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.shared, self.leave = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.matrix = nn.Parameter(torch.eye(6))

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = functional.relu(self.enter(x)) * scale
        x = functional.relu(self.shared(functional.relu(self.shared(x)))) @ self.matrix
        return self.leave(x), {"hidden": x}


@pytest.mark.parametrize("method", QUICK)
def test_functional_shared_and_unseen(method: str) -> None:
    module = drawn(Functional)

    def loss(output: tuple[Tensor, Any], targets: Tensor) -> Tensor:
        return functional.cross_entropy(output[0], targets)

    more = {"loss": loss, "targets": LABELS} if method in ("gradinit", "metainit") else {}
    batch = (inputs(12, 5), torch.tensor(2.0))
    report = run(module, batch, method, **more)
    names = [change.name for change in report.changes]
    assert names.count("shared.weight") == 1
    if not more:
        layers = [n for n in names if n != "enter.weight"]  # which has no layer before it
        assert layers == ["shared.weight", "leave.weight"]
        assert {"matrix", "unused.weight"} <= set(report.notes)
        assert all("not seen" in report.notes[name] for name in ("matrix", "unused.weight"))
        assert torch.equal(module.matrix, torch.eye(6))
    same_call = drawn(Functional)
    named = {"x": batch[0], "scale": batch[1]}
    assert run(same_call, named, method, **more) == report
    assert same(weights_of(same_call), weights_of(module))


@pytest.mark.parametrize("method", QUICK)
def test_frozen_weights_stay_and_are_named(method: str) -> None:
    module = drawn(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)))
    module[2].requires_grad_(False)
    before = weights_of(module)
    report = run(module, inputs(12, 5), method)
    assert torch.equal(module[2].weight, before["2.weight"])
    assert "2.weight" not in [change.name for change in report.changes]
    assert method in ("gradinit", "metainit") or "frozen" in report.notes["2.weight"]
    assert not torch.equal(module[4].weight, before["4.weight"])


@pytest.mark.parametrize("method", QUICK)
def test_attention_and_convolutions(method: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, stride=4)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.block(self.patch(image).flatten(2).mT).mean(1))

    module = drawn(Model)
    report = run(module, inputs(12, 3, 8, 8), method)
    names = [change.name for change in report.changes]
    assert "head.weight" in names
    if method in ("gradinit", "metainit"):
        assert "block.self_attn.in_proj_weight" in names
    else:
        assert "block.linear1.weight" in names
        assert "not seen" in report.notes["block.self_attn.in_proj_weight"]


@pytest.mark.parametrize("method", QUICK)
def test_tied_weights_stay_tied_and_change_once(method: str) -> None:
    def tied() -> nn.Sequential:
        module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
        module[4].weight = module[2].weight
        return module

    module = drawn(tied)
    report = run(module, inputs(12, 5), method)
    assert module[4].weight is module[2].weight
    names = [change.name for change in report.changes]
    assert names.count("2.weight") == 1
    assert "4.weight" not in names
    if method == "lsuv":  # the first call counts
        middle = module[:3](inputs(12, 5)).detach()
        assert abs(float(middle.var(correction=0)) - 1) < 0.05


@pytest.mark.parametrize("method", ["lsuv", "within_layer", "jacobian"])
def test_parametrised_weights_are_left_and_named(method: str) -> None:
    def build() -> nn.Module:
        normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        return nn.Sequential(nn.Linear(5, 6), normed, nn.Linear(6, 3))

    module = drawn(build)
    before = weights_of(module)
    report = run(module, inputs(12, 5), method)
    for name in ("1.parametrizations.weight.original0", "1.parametrizations.weight.original1"):
        assert "not seen" in report.notes[name]
        assert torch.equal(weights_of(module)[name], before[name])
    assert not torch.equal(module[2].weight, before["2.weight"])


def test_a_users_hooks_see_calibrated_outputs() -> None:
    module, seen = drawn(lambda: nn.Linear(5, 6)), []
    module.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    calibrate_(module, inputs(64, 5))
    assert abs(float(seen[0].var(correction=0)) - 1) < 0.05


@pytest.mark.parametrize("method", ["gradinit", "metainit"])
def test_fused_attention_has_the_derivatives_that_are_needed(method: str) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.maps(x).unsqueeze(1).chunk(3, dim=-1)
            return self.head(functional.scaled_dot_product_attention(q, k, v).mean((1, 2)))

    module = drawn(Attention)
    before = weights_of(module)
    run(module, inputs(12, 4, 8), method)
    assert not torch.equal(module.maps.weight, before["maps.weight"])


def test_flags_that_a_module_sets_while_it_runs_are_put_back() -> None:
    class Freezing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.bias.requires_grad_(False)
            return super().forward(x)

    module = drawn(lambda: Freezing(5, 3))
    calibrate_(module, inputs(12, 5))
    assert module.bias.requires_grad


def test_options_and_defaults_are_the_catalogues() -> None:
    assert set(METHODS) == set(CALIBRATIONS)
    for name, entry in CALIBRATIONS.items():
        parameters = dict(inspect.signature(METHODS[name]).parameters)
        parameters.pop("task")
        assert {n: p.default for n, p in parameters.items()} == {n: d for n, (_, d) in entry.options.items()}
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "lsuvv"}, "did you mean 'lsuv'"),
        ({"tolerence": 0.1}, "unknown option.*did you mean 'tolerance'"),
        ({"tolerance": -1.0}, "tolerance: expected greater than 0; got -1.0"),
        ({"tolerance": float("nan")}, "tolerance: "),
        ({"max_iterations": 0}, "max_iterations: expected greater than or equal to 1"),
        ({"max_iterations": 2.5}, "max_iterations: expected a valid integer"),
        ({"method": "gradinit", "optimizer": "lion"}, "optimizer: expected 'sgd' or 'adam'"),
        ({"method": "gradinit"}, "loss: cross-entropy, the default, expects"),
        ({"method": "gradinit", "targets": torch.randn(12, 3)}, "integer labels; got .*torch.float32: give loss="),
        ({"method": "gradinit", "loss": functional.cross_entropy}, "missing 1 required positional argument: 'target'"),
        ({"method": "gradinit", "loss": lambda z: z}, "one number; it returned shape"),
        ({"method": "gradinit", "loss": lambda z: 0.0}, "it returned float"),
    ],
)
def test_errors_say_what_to_do(arguments: dict[str, Any], match: str) -> None:
    module = drawn(lambda: nn.Linear(5, 3))
    before = weights_of(module)
    with pytest.raises((ValueError, TypeError), match=match):
        calibrate_(module, inputs(12, 5), **arguments)
    assert same(weights_of(module), before)


def test_errors_about_modules_and_batches() -> None:
    linear = drawn(lambda: nn.Linear(5, 3))
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module; got function"):
        calibrate_(lambda x: x, inputs(12, 5))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"batch: expected.*got int.*targets="):
        calibrate_(linear, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Tanh called none"):
        calibrate_(nn.Tanh(), inputs(12, 5))
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet: run a batch"):
        calibrate_(nn.Sequential(nn.LazyLinear(3)), inputs(12, 5))
    for method in ("gradinit", "metainit"):
        with pytest.raises(ValueError, match="not frozen"):
            run(nn.Tanh(), inputs(12, 5), method)


def test_derivatives_that_are_not_finite_are_named() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.detach()).sqrt()  # 0, with an infinite slope

    module = drawn(lambda: nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 8), Root(), nn.Linear(8, 3)))
    before = weights_of(module)
    with pytest.raises(ValueError, match=r"3\.weight: expected finite derivatives of the layer's output"):
        run(module, inputs(12, 5), "jacobian")
    assert same(weights_of(module), before)


@pytest.mark.parametrize("method", ["lsuv", "within_layer"])
def test_infinities_and_empty_batches_are_named(method: str) -> None:
    module = drawn(lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)))
    batch = inputs(12, 5)
    batch[3, 2] = float("nan")
    before = weights_of(module)
    with pytest.raises(ValueError, match=r"0\.weight: expected finite outputs"):
        run(module, batch, method)
    with pytest.raises(ValueError, match=r"0\.weight: expected a batch with something in it.*\(0, 8\)"):
        run(module, torch.empty(0, 5), method)
    assert same(weights_of(module), before)


def test_none_does_nothing() -> None:
    module = untidy()
    before, weights = trace_of(module), weights_of(module)
    assert calibrate_(module, inputs(12, 5), "none") == Calibration("none", "nothing")
    assert same(trace_of(module), before)
    assert same(weights_of(module), weights)


def test_the_report_as_text() -> None:
    changes = (Change("0.weight", 0.1, 1.0, 1), Change("10.weight", 0.25, 0.99, 2))
    text = str(Calibration("lsuv", "variance", changes, (2.5, 1.25), {"e.weight": "frozen"}))
    assert text.splitlines() == [
        "lsuv: variance; objective 2.5 -> 1.25",
        "  0.weight          0.1 ->          1  (1)",
        "  10.weight        0.25 ->       0.99  (2)",
        "  e.weight: frozen",
    ]


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in QUICK:
            run(drawn(Untidy), inputs(12, 5), method)
    assert torch.is_grad_enabled()
