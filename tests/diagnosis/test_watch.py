"""watch: its numbers against plain loops, silence on healthy trainings, findings, and that it changes nothing."""

from __future__ import annotations

import copy
import json
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

from fanin.diagnosis.watch import DiagnosisWarning, watch
from fanin.diagnosis.watch.streams import POINTS, DeadUnits, LossCurve
from fanin.errors import FaninError

pytestmark = pytest.mark.usefixtures("one_thread")


CRITERION = nn.CrossEntropyLoss


def mlp(act=nn.ReLU, depth=2, width=16, seed=0):
    torch.manual_seed(seed)
    layers, fan_in = [], 6
    for _ in range(depth):
        layers += [nn.Linear(fan_in, width), act()]
        fan_in = width
    return nn.Sequential(*layers, nn.Linear(fan_in, 3))


def task(n=256):
    g = torch.Generator().manual_seed(7)
    x = torch.randn(n, 6, generator=g)
    return x, (x[:, :3] + 0.3 * x[:, 3:]).argmax(1)


def loop(model, optimizer, *, steps=120, every=10, loss=True, batch=32, data=None, **options):
    """A user's own loop, watched; findings are collected, not warned of."""
    x, y = data or task()
    criterion, g = CRITERION(), torch.Generator().manual_seed(1)
    told = []
    options = {"on_finding": told.append} | options
    with watch(model, optimizer, every=every, loss=criterion if loss else None, **options) as w:
        for _ in range(steps):
            at = torch.randint(len(x), (batch,), generator=g)
            optimizer.zero_grad()
            criterion(model(x[at]), y[at]).backward()
            optimizer.step()
    assert told == w.findings
    return w


def sgd(model, lr, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def square(t):
    return t.detach().double().square().mean().item()


def causes(w):
    return [f.cause for f in w.findings]


def layers_of(w):
    return {(row["name"], row["type"]): row for row in w.to_dict()["layers"]}


def test_the_numbers_of_one_step_are_those_of_a_plain_loop():
    model, (x, y) = mlp(), task(20)
    optimizer = sgd(model, 0.5)
    seen, h = [], x
    for part in model:  # the oracle: every output by hand, its gradient by retain_grad
        h = part(h)
        h.retain_grad()
        seen.append(h)
    CRITERION()(h, y).backward()
    weights = [p.detach().clone() for p in model.parameters()]
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    with watch(model, optimizer, every=1) as w:
        CRITERION()(model(x), y).backward()
        optimizer.step()
    rows = w.to_dict()["layers"]
    assert [r["name"] for r in rows] == ["0", "1", "2", "3", "4"]
    for row, h in zip(rows, seen, strict=True):
        assert row["activation"] == pytest.approx(square(h), rel=1e-6)
        assert row["gradient"] == pytest.approx(square(h.grad), rel=1e-6)
    for i in (1, 3):
        assert rows[i]["dead"] == pytest.approx(float((seen[i] <= 0).all(0).double().mean()))
    assert rows[0]["dead"] is None
    for found, before, g in zip(w.to_dict()["weights"], weights, gradients, strict=True):
        assert found["gradient"] == pytest.approx(square(g), rel=1e-6)
        moved = float((0.5 * g).norm() / before.norm())
        assert found["update"] is None if before.dim() < 2 else found["update"] == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize(("act", "slope"), [(nn.Tanh, lambda t: 1 - t**2), (nn.Sigmoid, lambda s: 4 * s * (1 - s))])
def test_saturation_is_the_share_of_flat_entries(act, slope):
    model, (x, y) = mlp(act), task(50)
    nn.init.normal_(model[0].weight, std=3.0)
    with torch.no_grad():
        flat = float((slope(model[1](model[0](x))) < 0.05).double().mean())
    assert 0.1 < flat < 1
    with watch(model, sgd(model, 0.0), every=1) as w:
        CRITERION()(model(x), y).backward()
    w2 = loop(model, sgd(model, 0.0), steps=1, every=1, data=(x, y), batch=50)
    assert layers_of(w)["1", act.__name__]["saturated"] == pytest.approx(flat, abs=1e-6)
    assert layers_of(w2)["1", act.__name__]["saturated"] != pytest.approx(flat, abs=1e-9)  # other examples: other share


class Functional(nn.Module):
    """ReLU as a function; the second layer's units are all dead."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        nn.init.constant_(self.b.bias, -100.0)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_functions_called_in_forward_are_seen_by_what_the_next_layer_takes():
    model = Functional()
    w = loop(model, sgd(model, 0.01))
    rows = layers_of(w)
    assert rows["b", "torch.relu"]["dead"] < 1
    assert rows["c", "torch.relu"]["dead"] == 1
    (finding,) = [f for f in w.findings if f.cause == "dead-units"]
    assert (finding.layer, finding.value) == ("c", 1.0)


@pytest.mark.parametrize("every", [1, 7])
def test_a_watched_training_is_bit_for_bit_the_unwatched_one(every):
    def train(watched):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Dropout(0.3),
                              nn.Linear(16, 3))  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x, y = task()
        if watched:
            with watch(model, optimizer, every=every, on_finding=print) as w:
                for _ in range(20):
                    optimizer.zero_grad()
                    loss = CRITERION()(model(x), y)
                    w.loss(loss)
                    loss.backward()
                    optimizer.step()
        else:
            for _ in range(20):
                optimizer.zero_grad()
                CRITERION()(model(x), y).backward()
                optimizer.step()
        return [t.clone() for t in model.state_dict().values()], torch.get_rng_state()

    (a, random_a), (b, random_b) = train(True), train(False)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert torch.equal(random_a, random_b)


def test_a_step_is_one_of_the_optimiser_and_gathers_its_passes():
    model, (x, y) = mlp(), task(40)
    optimizer = sgd(model, 0.1)
    with watch(model, optimizer, every=1) as w:
        for part in (slice(0, 20), slice(20, 40)):
            loss = CRITERION()(model(x[part]), y[part]) / 2
            w.loss(2 * loss)
            loss.backward()
            expected = [square(p.grad) for p in model.parameters()]
        optimizer.step()
    halves = [square(torch.relu(mlp()[0](x[p]))) for p in (slice(0, 20), slice(20, 40))]
    assert w.steps == 1
    assert [row["gradient"] for row in w.to_dict()["weights"]] == pytest.approx(expected, rel=1e-6)
    assert w.to_dict()["layers"][1]["activation"] == pytest.approx(sum(halves) / 2, rel=1e-6)
    assert w.to_dict()["losses"]["values"] == pytest.approx([CRITERION()(mlp()(x), y).item()], rel=1e-5)


def test_a_gradient_scaler_is_divided_out():
    def gradients(scaler, told):
        model, (x, y) = mlp(), task(40)
        optimizer = sgd(model, 0.1)
        with watch(model, optimizer, every=1, scaler=scaler if told else None) as w:
            with torch.autocast("cpu", torch.bfloat16):
                loss = CRITERION()(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        plain = w.to_dict()
        return [r["gradient"] for r in plain["layers"]], [r["gradient"] for r in plain["weights"]]

    def scaler(enabled=True):
        return torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=enabled)

    layers, weights = gradients(scaler(enabled=False), told=False)
    assert all(0 < value < 1 for value in layers)
    for found, expected in zip(gradients(scaler(), told=True), (layers, weights), strict=True):
        assert found == pytest.approx(expected, rel=0.02)
    untold, _ = gradients(scaler(), told=False)
    assert untold == pytest.approx([2**20 * value for value in layers], rel=0.02)


def test_a_closures_loss_and_gradients_are_seen():
    model, (x, y) = mlp(), task()
    optimizer = sgd(model, 0.1)

    def closure():  # as Lightning hands one to the optimiser
        optimizer.zero_grad()
        loss = CRITERION()(model(x), y)
        loss.backward()
        return loss

    with watch(model, optimizer, every=1) as w:
        for _ in range(3):
            first = float(optimizer.step(closure).detach())
            w_first = w.to_dict()["losses"]["values"][-1]
            assert w_first == pytest.approx(first)
    assert all(row["gradient"] for row in w.to_dict()["weights"])
    assert w.steps == 3


def test_lbfgs_counts_its_own_steps():
    model, (x, y) = mlp(), task(40)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = CRITERION()(model(x), y)
        loss.backward()
        return loss

    with watch(model, optimizer, every=1) as w:
        for _ in range(2):
            optimizer.step(closure)
    assert w.steps == 2
    assert len(w.to_dict()["losses"]["values"]) == 2


def test_passes_without_gradients_are_left_out():
    model, (x, y) = mlp(), task()
    optimizer = sgd(model, 0.0)
    with watch(model, optimizer, every=1) as w:
        with torch.no_grad():
            model(1e6 * x)
        CRITERION()(model(x), y).backward()
        optimizer.step()
    assert w.to_dict()["layers"][0]["activation"] == pytest.approx(square(model[0](x)), rel=1e-6)


def test_data_parallel_is_seen_through():
    model = mlp()
    w = loop(nn.DataParallel(model), sgd(model, 0.1), steps=5, every=1)
    assert list(layers_of(w)) == [("0", "Linear"), ("1", "ReLU"), ("2", "Linear"), ("3", "ReLU"), ("4", "Linear")]
    assert w.unseen == ()


@pytest.mark.parametrize("in_place", [False, True])
def test_of_a_compiled_network_it_says_what_it_cannot_see(in_place):
    model = mlp()
    optimizer = sgd(model, 0.1)
    if in_place:
        model.compile(backend="eager")
        network = model
    else:
        network = torch.compile(model, backend="eager")
    w = loop(network, optimizer, steps=5, every=1)
    assert w.unseen == ("the network is compiled: inside, only weights, their gradients and updates are seen",)
    assert w.to_dict()["layers"] == []
    assert all(row["gradient"] for row in w.to_dict()["weights"])
    assert w.to_dict()["losses"]["values"]
    assert not model._forward_hooks
    assert not network._forward_hooks


def test_what_is_never_called_and_a_loss_that_nobody_told_are_unseen():
    model = mlp()
    model.forward = nn.Sequential(*model).__call__  # a method, and so no part of it
    model.spare = nn.Linear(3, 3)
    w = loop(model, sgd(model, 0.1), steps=2, every=1, loss=False)
    assert any(note.startswith("the loss: pass loss=criterion") for note in w.unseen)
    assert "spare: has weights, but was not called as a module" in w.unseen


def test_outputs_that_hold_the_loss_tell_it():
    class Outputs(dict):
        pass

    class Hugging(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x, labels):
            logits = self.net(x)
            return Outputs(loss=CRITERION()(logits, labels), logits=logits)

    model, (x, y) = Hugging(), task()
    optimizer = sgd(model, 0.1)
    with watch(model, optimizer, every=1) as w:
        loss = model(x, labels=y)["loss"]
        loss.backward()
        optimizer.step()
    assert w.to_dict()["losses"]["values"] == pytest.approx([float(loss.detach())])


def half_dead(width):
    model = mlp(width=width)
    with torch.no_grad():
        model[0].bias[: width // 2] = -100.0
    return model


HEALTHY = {
    "SGD": (mlp, lambda m: sgd(m, 0.3)),
    "Adam": (lambda: mlp(depth=3), lambda m: torch.optim.Adam(m.parameters(), lr=0.01)),
    "tanh, momentum": (lambda: mlp(nn.Tanh), lambda m: sgd(m, 0.1, momentum=0.9)),
    "half the units dead": (lambda: half_dead(64), lambda m: sgd(m, 0.3)),
    "no hidden layer": (lambda: mlp(depth=0), lambda m: sgd(m, 0.5)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_it_is_silent_on_healthy_trainings(name):
    make, optimizer = HEALTHY[name]
    model = make()
    assert causes(loop(model, optimizer(model), steps=400, every=20)) == []


def all_dead():
    model = mlp()
    nn.init.constant_(model[2].bias, -100.0)
    return model


def saturated():
    model = mlp(nn.Tanh)
    with torch.no_grad():
        model[0].weight *= 1000
        model[2].weight *= 1000
    return model


def detached():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.b(self.a(x).detach())

    return Cut()


FAULTY = {
    "learning-rate-low": (mlp, lambda m: sgd(m, 1e-8)),
    "learning-rate-high": (mlp, lambda m: torch.optim.Adam(m.parameters(), lr=5.0)),
    "vanishing-gradient": (lambda: mlp(nn.Sigmoid, depth=8), lambda m: sgd(m, 0.1)),
    "dead-units": (all_dead, lambda m: sgd(m, 0.1)),
    "saturation": (saturated, lambda m: sgd(m, 1e-4)),
    "frozen-parameters": (detached, lambda m: sgd(m, 1e-5)),
    "optimizer": (mlp, lambda m: sgd(mlp(), 0.1)),
    "too-few-epochs": (mlp, lambda m: sgd(m, 0.05)),
}


@pytest.mark.parametrize("cause", FAULTY)
def test_it_names_what_is_wrong(cause):
    make, optimizer = FAULTY[cause]
    model = make()
    w = loop(model, optimizer(model), steps=200, every=10)
    assert cause in causes(w)
    assert len(set(causes(w))) == len(w.findings)  # each once
    assert causes(w)[0] == cause, causes(w)
    assert f"1. {cause}" in str(w)


def test_symptoms_are_not_judged_while_the_rate_still_rises():
    model = mlp()
    optimizer = sgd(model, 1e-8)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step + 1))
    criterion, (x, y) = CRITERION(), task()
    with watch(model, optimizer, every=10, loss=criterion, on_finding=print) as w:
        for _ in range(200):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            scheduler.step()
    assert w.findings == []
    assert "learning-rate-low" in causes(loop(model, sgd(model, 1e-8), steps=200))  # without a warm-up


def test_nothing_is_judged_where_the_loop_broke_off():
    model = mlp()
    told = []

    def broken():
        optimizer, criterion, (x, y) = sgd(model, 0.05), CRITERION(), task()
        with watch(model, optimizer, every=300, loss=criterion, on_finding=told.append):
            for _ in range(200):
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert told == []  # the same, ended in order, is too-few-epochs


def test_training_in_evaluation_mode_is_named_where_it_does_not_learn():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)).eval()
    assert "wrong-mode" in causes(loop(model, sgd(model, 1e-8), steps=150))


class Log(nn.Module):
    def forward(self, x):
        return torch.log(x)


def test_what_is_not_finite_is_told_at_once_with_its_layer_and_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), Log(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer, (x, y) = sgd(model, 0.01), task(16)
    bad = x.clone()
    with torch.no_grad():
        bad[0] = -1e6 * model[0].weight[0]
    with watch(model, optimizer, every=50) as w:
        for step in range(1, 5):
            optimizer.zero_grad()
            CRITERION()(model(bad if step == 3 else x), y).backward()
            state = {k: v.clone() for k, v in model.state_dict().items()}
            if step == 3:
                with pytest.warns(DiagnosisWarning, match="non-finite in 2: at step 3"):
                    optimizer.step()
                # passing the batch once more left running statistics as they were; weights have moved by NaN
                assert torch.equal(model[3].num_batches_tracked, state["3.num_batches_tracked"])
            else:
                optimizer.step()
    assert [(f.cause, f.layer) for f in w.findings] == [("non-finite", "2")]


def test_a_loss_that_is_not_finite_though_all_outputs_are():
    model = mlp()
    optimizer, (x, _) = sgd(model, 0.01), task(16)
    told = []
    with watch(model, optimizer, every=50, on_finding=told.append) as w:
        loss = torch.log(model(x).square().sum() * 0)
        w.loss(loss)
        optimizer.step()
    assert [(f.cause, f.layer) for f in told] == [("non-finite", None)]
    assert "the loss is -inf" in told[0].evidence


def test_weights_that_are_not_finite_are_named():
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    optimizer, (x, y) = sgd(model, 0.01), task(16)
    told = []
    with watch(model, optimizer, every=50, on_finding=told.append):
        CRITERION()(model(x), y).backward()
        optimizer.step()
    assert [(f.cause, f.layer) for f in told] == [("non-finite", "2.weight")]


def test_findings_are_warnings_unless_someone_takes_them():
    model = mlp()
    with pytest.warns(DiagnosisWarning, match="learning-rate-low: at lr = 1e-08") as caught:
        without_noise(model, 1e-8)
    assert len(caught) == 1


def without_noise(model, lr):
    criterion, (x, y) = CRITERION(), task()
    optimizer = sgd(model, lr)
    with watch(model, optimizer, every=10, loss=criterion):
        for _ in range(200):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()


@pytest.mark.parametrize("raising", [False, True])
def test_no_hook_is_left(raising):
    model, criterion = mlp(), CRITERION()
    optimizer, (x, y) = sgd(model, 0.1), task()
    kept = []
    with pytest.raises(ZeroDivisionError) if raising else warnings.catch_warnings():  # noqa: SIM117 - one is conditional
        with watch(model, optimizer, every=1, loss=criterion):
            out = model(x)
            kept.append(out)
            if raising:
                raise ZeroDivisionError
            criterion(out, y).backward()
            optimizer.step()
    for part in (*model.modules(), criterion):
        assert not part._forward_hooks
        assert not part._forward_hooks_with_kwargs
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not kept[0]._backward_hooks


def test_copies_and_pickles_of_a_watched_network_are_deaf():
    """As a loop keeps its best network, or writes it, in the middle of a looked-at step."""
    model, criterion, (x, y) = mlp(), CRITERION(), task()
    optimizer = sgd(model, 0.1)
    with watch(model, optimizer, every=1, loss=criterion) as w:
        criterion(model(x), y).backward()
        twin, read = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        for other in (twin, read):
            other(1e6 * x)
        optimizer.step()
    assert w.to_dict()["layers"][0]["activation"] == pytest.approx(square(mlp()[0](x)), rel=1e-6)


def test_memory_stays_bounded_and_the_curve_right():
    curve = LossCurve()
    for i in range(10_000):
        curve.add(float(i))
    assert POINTS <= len(curve.points) < 2 * POINTS
    s = curve.stride
    assert curve.points == [s * k + (s - 1) / 2 for k in range(len(curve.points))]
    curve.add(math.nan)
    assert curve.steps == 10_001


def test_dead_is_dead_over_the_last_looks():
    dead = DeadUnits()
    assert math.isnan(dead.share)
    for _ in range(3):
        dead.add(torch.tensor([True, True, False, False]))
    dead.add(torch.tensor([True, False, False, False]))
    assert dead.share == 0.25
    for _ in range(25):  # units that die later are seen to be dead
        dead.add(torch.tensor([True, True, True, False]))
    assert dead.share == 0.75


def test_as_data_and_as_text():
    model = mlp()
    w = loop(model, sgd(model, 0.3), steps=12, every=5)
    plain = json.loads(json.dumps(w.to_dict(), allow_nan=False))
    assert {"healthy", "findings", "facts", "experiments", "unseen", "losses", "layers", "weights"} <= set(plain)
    assert plain["facts"]["watched"] == "12 steps, 3 of them looked at"
    text = str(w)
    assert "Nothing found." in text
    assert "update/weight" in text
    assert "Nothing found" in w._repr_html_()


def test_wrong_use_is_told():
    model = mlp()
    with pytest.raises(FaninError, match=r"watch, model: expected an nn.Module; got Tensor"):
        watch(torch.zeros(1), sgd(model, 0.1))
    with pytest.raises(FaninError, match=r"watch, optimizer: expected one of torch.optim's; got int"):
        watch(model, 3)
    with pytest.raises(ValueError, match="every: expected at least 1; got 0"):
        watch(model, sgd(model, 0.1), every=0)
    w = watch(model, sgd(model, 0.1))
    with w:
        pass
    with pytest.raises(FaninError, match="entered once"), w:
        pass
