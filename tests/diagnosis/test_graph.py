"""The autograd graph as operations: kinds, ways, owners of parameters, against networks whose operations are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fanin.diagnosis.graph import VIEWS, Graph, Op, activation_inputs, back_through, graph_of


def seen(forward: Callable[..., Tensor], x: Tensor, **parts: nn.Module | nn.Parameter) -> Graph:
    """The graph of a network with these parts, whose forward is forward(network, x)."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    net = Net()
    for name, part in parts.items():
        setattr(net, name, part)
    return graph_of(net, net(x))


def last(graph: Graph) -> Op:
    assert graph.output is not None
    return graph.output


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def dropped(h: Tensor) -> Tensor:
    return functional.dropout(h, 0.5)


KINDS: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    ("view", lambda h: h.view(2, 3, 4), "linear"),
    ("transpose", lambda h: h.t(), "linear"),
    ("mean", lambda h: h.mean(1), "linear"),
    ("sum of two", lambda h: h + h.flip(0), "linear"),
    ("difference", lambda h: 1 - h, "linear"),
    ("cat", lambda h: torch.cat([h, h], 1), "linear"),
    ("slice", lambda h: h[:, 1:], "linear"),
    ("average pooling", lambda h: functional.avg_pool1d(h[None], 2), "linear"),
    ("dropout", dropped, "linear"),
    ("times a number", lambda h: h * 3, "linear"),
    ("times a constant", lambda h: h * torch.ones(4), "linear"),
    ("over a constant", lambda h: h / 2, "linear"),
    ("a constant matrix", lambda h: h @ torch.ones(4, 2), "linear"),
    ("times itself", lambda h: h * h, "nonlinear"),
    ("over itself", lambda h: h / (h + 1), "nonlinear"),
    ("a product of two activations", lambda h: h @ h.t(), "nonlinear"),
    ("relu", lambda h: h.relu(), "nonlinear"),
    ("relu in place", lambda h: h.relu_(), "nonlinear"),
    ("gelu", functional.gelu, "nonlinear"),
    ("sine", torch.sin, "nonlinear"),
    ("softmax", lambda h: h.softmax(1), "nonlinear"),
    ("max pooling", lambda h: functional.max_pool2d(h[None, None], 2), "nonlinear"),
    ("layer norm", lambda h: functional.layer_norm(h, (4,)), "nonlinear"),
]


@pytest.mark.parametrize(("of", "kind"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_an_operation_is_linear_where_it_maps_sums_to_sums(of: Callable[[Tensor], Tensor], kind: str) -> None:
    graph = seen(lambda net, x: of(net.first(x)), X, first=nn.Linear(4, 4))
    assert last(graph).kind == kind
    if of is not dropped:  # which draws anew
        a, b = (torch.randn(6, 4, generator=torch.Generator().manual_seed(s)) for s in (2, 3))
        centred = [of(t.clone()) - of(torch.zeros(6, 4)) for t in (a, b, a + b)]
        additive = torch.allclose(centred[0] + centred[1], centred[2], atol=1e-5)
        assert additive == (kind == "linear")  # the definition, asked of the operation itself


WEIGHTED: list[tuple[str, nn.Module, Tensor, str, str]] = [
    ("linear", nn.Linear(4, 5), X, "weighted", "Addmm"),
    ("no bias", nn.Linear(4, 5, bias=False), X, "weighted", "Mm"),
    ("sequences", nn.Linear(4, 5, bias=False), X.view(3, 2, 4), "weighted", "Mm"),
    ("convolution", nn.Conv2d(3, 2, 3), IMAGES, "weighted", "Convolution"),
    ("transposed", nn.ConvTranspose2d(3, 2, 2), IMAGES, "weighted", "Convolution"),
    ("embedding", nn.Embedding(9, 4), torch.arange(6), "lookup", "Embedding"),
    ("bag", nn.EmbeddingBag(9, 4), torch.arange(6).view(2, 3), "lookup", "EmbeddingBag"),
    ("weight norm", nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), X, "weighted", "Addmm"),
    ("spectral norm", nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)), X, "weighted", "Addmm"),
]


@pytest.mark.parametrize(("part", "x", "kind", "name"), [w[1:] for w in WEIGHTED], ids=[w[0] for w in WEIGHTED])
def test_a_product_with_parameters_is_known_with_its_owner(part: nn.Module, x: Tensor, kind: str, name: str) -> None:
    graph = seen(lambda net, x: net.inner[0](x) * 2.0, x, inner=nn.Sequential(part))
    found = [op for op in graph.ops if op.kind not in ("linear", "nonlinear")]
    assert [(op.kind, op.name) for op in found] == [(kind, name)]
    assert found[0].layer.startswith("inner.0")
    assert graph.used == {f"inner.0.{n}" for n, _ in part.named_parameters()}
    assert graph.weighted == (found if kind == "weighted" else [])


@pytest.mark.parametrize("part", [nn.GRU(4, 5), nn.LSTM(4, 5), nn.RNN(4, 5)], ids=["gru", "lstm", "rnn"])
def test_recurrent_layers_have_weights_and_are_not_linear(part: nn.Module) -> None:
    graph = seen(lambda net, x: net.out(net.cell(x)[0]), X.view(2, 3, 4), cell=part, out=nn.Linear(5, 2))
    layers = {op.layer for op in graph.weighted}
    assert layers == {"cell", "out"}
    assert any(op.kind in ("recurrent", "nonlinear") for op in graph.behind())


def test_an_attention_s_product_of_activations_is_no_layer() -> None:
    def attend(net: nn.Module, x: Tensor) -> Tensor:
        q, k, v = net.qkv(x).chunk(3, -1)
        return net.out((q @ k.transpose(1, 2)).softmax(-1) @ v)

    graph = seen(attend, X.view(3, 2, 4), qkv=nn.Linear(4, 12), out=nn.Linear(4, 4))
    assert [op.layer for op in graph.weighted] == ["qkv", "out"]
    assert [op.kind for op in graph.ops if op.name == "Bmm"] == ["nonlinear", "nonlinear"]


def test_shared_weights_are_one_parameter_and_two_products() -> None:
    graph = seen(lambda net, x: net.a(net.a(x).relu()), X, a=nn.Linear(4, 4))
    assert [op.layer for op in graph.weighted] == ["a", "a"]
    assert graph.used == {"a.weight", "a.bias"}


def test_users_count_what_is_made_of_each_result() -> None:
    graph = seen(lambda net, x: (h := net.a(x)).relu() + h.tanh() + h, X, a=nn.Linear(4, 4))
    users = graph.users()
    by_name = {op.name: op for op in graph.ops}
    assert users[by_name["Addmm"]] == 3
    assert users[by_name["Relu"]] == users[by_name["Tanh"]] == 1
    assert users[last(graph)] == 0


def test_behind_leaves_out_what_the_output_is_not_made_of_and_between_is_the_loss() -> None:
    net = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    output = net["a"](X).relu()
    loss = ((output - 1) ** 2).mean() + net["b"](X).tanh().sum()
    graph = graph_of(net, output, loss)
    assert [op.name for op in graph.behind()] == ["T", "Addmm", "Relu"]
    names = [op.name for op in graph.between()]
    assert names[0] == "Add"
    assert {"Mean", "Pow", "Sub", "Tanh"} <= set(names)
    assert "Relu" not in names
    assert graph_of(net, output, output.detach().mean()).loss is None
    assert graph_of(net, output, output).between() == []


def test_an_output_of_no_parameter_has_no_graph() -> None:
    net = nn.Linear(4, 4)
    graph = graph_of(net, X * 2)
    assert (graph.output, graph.ops, graph.used) == (None, [], frozenset())
    assert graph.behind() == []


def test_shapes_are_those_of_the_results() -> None:
    graph = seen(lambda net, x: net.b(net.a(x).relu().mean((2, 3))), IMAGES, a=nn.Conv2d(3, 5, 3), b=nn.Linear(5, 2))
    shapes = {op.name: op.shape for op in graph.ops if op.name != "T"}
    assert shapes == {"Convolution": (2, 5, 6, 6), "Relu": (2, 5, 6, 6), "Mean": (2, 5), "Addmm": (2, 2)}


def test_back_through_passes_views_and_stops_at_the_first_other() -> None:
    graph = seen(lambda net, x: net.a(x).tanh().view(2, 3, 4).transpose(1, 2).squeeze(0), X, a=nn.Linear(4, 4))
    assert back_through(graph, last(graph), VIEWS).name == "Tanh"
    assert back_through(graph, last(graph), frozenset()).name == last(graph).name == "Squeeze"
    assert [op.name for op in activation_inputs(graph, back_through(graph, last(graph), VIEWS))] == ["Addmm"]


def test_what_is_saved_is_there_before_the_backward_pass_and_none_after() -> None:
    net = nn.Linear(4, 3)
    loss = net(X).relu().sum()
    graph = graph_of(net, loss)
    relu = next(op for op in graph.ops if op.name == "Relu")
    assert torch.equal(relu.saved("result"), net(X).relu())
    assert relu.saved("no such thing") is None
    loss.backward()
    assert relu.saved("result") is None


def test_a_derivative_by_the_inputs_is_seen() -> None:
    def residual(net: nn.Module, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(net.a(x).tanh().sum(), x, create_graph=True)
        return slope

    assert seen(residual, X, a=nn.Linear(4, 1)).differentiated
    assert not seen(lambda net, x: net.a(x).tanh(), X, a=nn.Linear(4, 1)).differentiated


def test_a_graph_of_any_depth_needs_no_recursion() -> None:
    net = nn.Linear(4, 4)
    h = net(X)
    for _ in range(5000):
        h = h + 1
    assert len(graph_of(net, h).ops) == 5002
