"""Networks whose branches run side by side: chains of layers, places without a way around, and what is said of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fanin.diagnosis import diagnose
from fanin.diagnosis.graph import Graph, graph_of
from fanin.diagnosis.ways import chains, cuts

pytestmark = pytest.mark.usefixtures("one_thread")


def names(model: nn.Module, x: Tensor) -> tuple[Graph, list[list[str]]]:
    graph = graph_of(model, model(x))
    return graph, [[op.layer for op in chain] for chain in chains(graph, graph.weighted)]


class Towers(nn.Module):
    """Two towers of `depth` layers each, joined by the sum of their outputs times `scales`, and a head."""

    def __init__(self, depth: int = 4, *, scales: tuple[float, float] = (1, 1), first: type[nn.Module] = nn.Tanh):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Sequential(*(part for _ in range(depth) for part in (nn.Linear(8, 8), first())))
        self.b = nn.Sequential(*(part for _ in range(depth) for part in (nn.Linear(8, 8), nn.Tanh())))
        for tower in (self.a, self.b):
            for part in tower:
                if isinstance(part, nn.Linear):
                    nn.init.orthogonal_(part.weight)
        self.head, self.scales = nn.Linear(8, 2), scales

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scales[0] * self.a(x) + self.scales[1] * self.b(x))


def test_a_plain_network_is_one_chain() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    assert names(model, torch.ones(4, 2))[1] == [["0", "2", "4"]]


def test_branches_are_chains_of_their_own() -> None:
    found = names(Towers(2), torch.ones(4, 8))[1]
    assert sorted(found) == [["a.0", "a.2", "head"], ["b.0", "b.2", "head"]]


def test_the_way_goes_through_most_layers_past_a_shortcut() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.short, self.one, self.two = (nn.Linear(3, 3) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(x)
            return self.short(h) + self.two(torch.relu(self.one(h)))

    assert names(Residual(), torch.ones(4, 3))[1] == [["into", "one", "two"]]


class Steps(nn.Module):
    """A recurrence written as a loop; gradients shrink by `shrink` a step, or grow."""

    def __init__(self, shrink: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = nn.RNNCell(2, 8), nn.Linear(8, 2)
        nn.init.orthogonal_(self.cell.weight_hh, shrink)
        nn.init.normal_(self.cell.weight_ih, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.out(h)


def test_a_recurrence_is_followed_through_its_steps() -> None:
    found = names(Steps(), torch.ones(4, 5, 2))[1]
    assert max(map(len, found)) == 6  # one product a step, and the output's
    assert all(chain[-1] == "out" for chain in found)


def test_layers_that_are_left_out_are_passed_over() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    graph = graph_of(model, model(torch.ones(4, 2)))
    some = [op for op in graph.weighted if op.layer != "2"]
    assert [[op.layer for op in chain] for chain in chains(graph, some)] == [["0", "4"]]


def task(inputs: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.randn(64, inputs, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


def causes(model: nn.Module) -> dict[str, str]:
    found = diagnose(model, task(), loss=nn.CrossEntropyLoss(), steps=0).findings
    return {finding.cause: finding.evidence for finding in found}


@pytest.mark.parametrize("scales", [(1e-6, 1), (1, 1e-6)])
def test_a_branch_on_another_scale_is_no_gradient_that_shrinks(scales: tuple[float, float]) -> None:
    """Gradients of each tower hardly change from layer to layer; only their sizes differ, as under a LayerScale."""
    assert not {"vanishing-gradient", "exploding-gradient"} & set(causes(Towers(scales=scales)))


def test_a_tower_in_which_gradients_shrink_is_named_beside_one_in_which_they_do_not() -> None:
    words = causes(Towers(depth=10, first=nn.Sigmoid))["vanishing-gradient"]
    assert "over 11 layers" in words
    alone = Towers(depth=10, first=nn.Sigmoid)
    alone.forward = lambda x: alone.head(alone.a(x))  # the same tower without the other
    assert causes(alone)["vanishing-gradient"].split(";")[0] == words.split(";")[0]


@pytest.mark.parametrize(("shrink", "accused"), [(0.3, set()), (4.0, {"exploding-gradient"})])
def test_weights_that_are_used_in_every_step_learn_by_the_largest_gradient(shrink: float, accused: set[str]) -> None:
    """Gradients that shrink through time leave the last steps theirs; those that grow are the weights' own."""
    x = 0.01 * torch.randn(64, 20, 2, generator=torch.Generator().manual_seed(1))
    model = Steps(shrink)
    with torch.no_grad():
        for bias in (model.cell.bias_hh, model.cell.bias_ih):
            bias.zero_()
        x *= shrink**-20 if shrink > 1 else 1  # so that tanh stays linear
    found = diagnose(model, (x, (x[:, -1, 0] > 0).long()), loss=nn.CrossEntropyLoss(), steps=0).findings
    assert {"vanishing-gradient", "exploding-gradient"} & {finding.cause for finding in found} == accused


class Factors(nn.Module):
    """Ratings by factors of users and items, and a bias of one number for each user."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.user, self.item = nn.Embedding(100, 16), nn.Embedding(60, 16)
        self.bias, self.out = nn.Embedding(100, 1), nn.Linear(1, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        user, item = pairs[:, 0], pairs[:, 1]
        return self.out(torch.tanh(self.bias(user))) + (self.user(user) * self.item(item)).sum(1, keepdim=True)


class OneNumber(Factors):
    """Nothing but the bias."""

    def forward(self, pairs: Tensor) -> Tensor:
        return self.out(torch.tanh(self.bias(pairs[:, 0])))


def test_a_place_with_a_way_around_it_is_no_cut() -> None:
    pairs = torch.stack([torch.arange(8), torch.arange(8)], 1)
    beside, alone = (graph_of(m, m(pairs)) for m in (Factors(), OneNumber()))
    assert "Tanh" not in [op.name for op in cuts(beside)]
    assert [op.name for op in cuts(alone)][-2:] == ["Tanh", "Embedding"]


class Joined(nn.Module):
    """A bottleneck of one number, and the inputs themselves beside it or not."""

    def __init__(self, *, beside: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.narrow, self.out, self.beside = nn.Linear(8, 1), nn.Linear(9, 10), beside

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.narrow(x))
        return self.out(torch.cat([h, x if self.beside else h.expand(-1, 8)], 1))


def test_inputs_that_come_in_behind_a_place_are_a_way_around_it() -> None:
    x = torch.ones(4, 8)
    with_inputs, without = (graph_of(m, m(x)) for m in (Joined(beside=True), Joined(beside=False)))
    assert "Relu" not in [op.name for op in cuts(with_inputs)]
    assert "Relu" in [op.name for op in cuts(without)]


def ratings() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(7)
    user, item = torch.randint(100, (2000,), generator=g), torch.randint(60, (2000,), generator=g)
    a, b = torch.randn(100, 3, generator=g), torch.randn(60, 3, generator=g)
    noise = torch.randn(2000, generator=g)
    return torch.stack([user, item], 1), ((a[user] * b[item]).sum(1) + 0.5 * noise)[:, None]


@pytest.mark.parametrize(("model", "narrow"), [(Factors, False), (OneNumber, True)])
def test_a_bias_beside_factors_is_no_bottleneck(model: type[Factors], narrow: bool) -> None:
    found = diagnose(model(), ratings(), loss=nn.MSELoss(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), steps=40)
    assert ("capacity" in [finding.cause for finding in found.findings]) is narrow, str(found)
