"""init_ and initializer: gains, generators, layouts, devices, errors, and signals that keep their scale."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fanin.initializers import init_, initializer
from fanin.theory import gain
from tests.initializers.networks import GPT, ResNet, mlp

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


GAINS = [
    ("kaiming_normal", {}, "forward"),
    ("kaiming_uniform", {"mode": "fan_out"}, "backward"),
    ("kaiming_normal", {"mode": "fan_avg"}, "both"),
    ("xavier_uniform", {}, "both"),
    ("glorot_normal", {}, "both"),
    ("lecun_normal", {}, "forward"),
    ("orthogonal", {}, "forward"),
    ("delta_orthogonal", {}, "forward"),
]


@pytest.mark.parametrize(("scheme", "options", "direction"), GAINS, ids=str)
def test_each_scheme_has_the_gain_of_its_direction(scheme: str, options: dict[str, Any], direction: Any) -> None:
    rows = init_(mlp(activation=nn.Tanh), scheme, dry_run=True, **options)
    assert rows[0].gain == pytest.approx(gain("tanh", direction), rel=1e-9)
    assert rows[0].gain != pytest.approx(gain("tanh", {"forward": "backward"}.get(direction, "forward")))
    assert rows[4].gain == 1
    given = init_(mlp(activation=nn.Tanh), scheme, gain=3.0, dry_run=True, **options)
    assert [row.gain for row in given if row.gain] == [3.0] * 3
    relu = init_(mlp(activation=nn.Tanh), scheme, activation="relu", dry_run=True, **options)
    assert [(row.gain, row.found) for row in relu if row.gain] == [(pytest.approx(2**0.5), "given")] * 3


def test_schemes_without_a_gain_keep_what_they_are() -> None:
    rows = init_(mlp(), "normal", std=0.02, dry_run=True)
    assert [(row.gain, row.std) for row in rows if row.fan_out] == [(None, 0.02)] * 3
    assert [row.gain for row in init_(mlp(), "identity", dry_run=True) if row.fan_out] == [1.0] * 3
    leaky = init_(mlp(), "kaiming_normal", negative_slope=0.2, dry_run=True)
    assert [(row.activation, row.found) for row in leaky if row.fan_out] == [("leaky_relu(0.2)", "given")] * 3
    assert leaky[0].std == pytest.approx(math.sqrt(2 / 1.04 / 8))


def test_the_place_in_the_network() -> None:
    module = init_(mlp(64, 3), "looks_linear", generator=seeded())
    x = torch.randn(5, 64, generator=seeded(1))
    assert torch.allclose(module(x) + module(-x), torch.zeros(5, 2), atol=1e-5)  # linear, so odd; a ReLU net is not
    assert not torch.allclose(init_(module, generator=seeded())(x) + module(-x), torch.zeros(5, 2), atol=1e-2)
    rows = init_(mlp(64), "mup", base_width=16, dry_run=True)
    assert rows[4].std == pytest.approx(0.5 / 8)  # sqrt(base_width / fan_in) / sqrt(fan_in)
    critical = init_(mlp(64, activation=nn.Tanh), "critical", dry_run=True)
    assert critical[0].std == pytest.approx(1 / 8, rel=1e-6)


def test_a_scheme_of_the_users_own() -> None:
    def ramp(noise: Any, shape: tuple[int, ...], *, fan_in: int, fan_out: int, top: float = 1.0) -> Tensor:
        return torch.linspace(0, top * fan_in, math.prod(shape)).reshape(shape)

    module = init_(mlp(), ramp, top=2.0)
    assert torch.equal(module[0].weight, ramp(None, (8, 8), fan_in=8, fan_out=8, top=2.0))
    assert init_(mlp(), ramp, dry_run=True)[0].scheme == "ramp"
    with pytest.raises(ValueError, match=r"0.weight: expected a tensor of shape \(8, 8\) from <lambda>; got \(8,\)"):
        init_(mlp(), lambda noise, shape, *, fan_in, fan_out: torch.zeros(8))


def test_signals_keep_their_scale_through_twenty_layers() -> None:
    x = torch.randn(64, 512, generator=seeded(1))
    module = init_(mlp(512, 20), generator=seeded())
    scales = []
    for layer in module[:-1]:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            scales.append(float(x.detach().square().mean()))
    assert len(scales) == 20
    assert all(0.5 < scale < 2 for scale in scales)
    default = mlp(512, 20)(torch.randn(64, 512, generator=seeded(1)))
    assert float(default.detach().var(0).mean()) < 1e-2  # what torch does when nothing is said


def test_signals_keep_their_scale_through_convolutions() -> None:
    layers: list[nn.Module] = []
    for _ in range(10):
        layers += [nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", groups=2), nn.GELU()]
    module = init_(nn.Sequential(*layers), generator=seeded())
    x = torch.randn(1, 64, 10, 10, generator=seeded(1))
    for layer in module:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            assert 0.4 < float(x.detach().var()) < 4  # gain^2 = 2.35 behind the first, falling to 1


def test_signals_keep_their_scale_through_transposed_convolutions_with_strides() -> None:
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.ConvTranspose1d(64, 64, 4, 2, 1, groups=2), nn.ReLU()]
    module = init_(nn.Sequential(*layers), generator=seeded())
    x = torch.randn(8, 64, 16, generator=seeded(1))
    theirs = x
    for layer in module:
        x = layer(x)
        if isinstance(layer, nn.ConvTranspose1d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=seeded())
        theirs = layer(theirs)
    assert 0.5 < float(x.detach().square().mean()) < 2
    assert float(theirs.detach().square().mean()) < 0.05  # torch's fan_in does not know of the stride: half each layer


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scheme", ["kaiming_normal", "xavier_uniform", "orthogonal"])
def test_parameters_stay_themselves(dtype: torch.dtype, scheme: str) -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Linear(6, 5)).to(dtype)
    module = module.to(memory_format=torch.channels_last)
    before = [(p, p.data_ptr(), p.stride(), p.dtype) for p in module.parameters()]
    with torch.inference_mode():
        assert init_(module, scheme, activation="relu", generator=seeded()) is module
    assert [(p, p.data_ptr(), p.stride(), p.dtype) for p in module.parameters()] == before
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    # the same numbers, but for rounding, as in single precision and in the usual layout
    plain = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Linear(6, 5)).to(
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    init_(plain, scheme, activation="relu", generator=seeded())
    tolerance = {torch.float16: 1e-3, torch.bfloat16: 1e-2}.get(dtype, 0.0)
    for p, q in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.to(q.dtype), q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_gains_can_be_found_where_no_gradient_can(context: Any) -> None:
    kink = 0.1 + float(torch.rand((), generator=seeded()))  # of which no gain is known yet
    module = mlp()
    with context():
        table = init_(mlp(activation=nn.PReLU), activation=lambda z: (z - kink).abs(), dry_run=True)
        assert init_(module, "critical", bias=0.1, activation=lambda z: torch.tanh(kink * z), generator=seeded())
    assert table[0].gain == pytest.approx(1 / math.sqrt(1 + kink**2), rel=1e-6)  # E (z - k)^2


def test_a_module_made_in_inference_mode_is_set_too() -> None:
    with torch.inference_mode():
        module = mlp()
        init_(module, generator=seeded())
    assert torch.equal(module[0].weight, init_(mlp(), generator=seeded())[0].weight)


def test_a_module_is_asked_anew_and_an_unhashable_function_too() -> None:
    slope = nn.PReLU(init=0.5)
    assert init_(mlp(), activation=slope, dry_run=True)[0].gain == pytest.approx(math.sqrt(2 / 1.25))
    nn.init.zeros_(slope.weight)
    assert init_(mlp(), activation=slope, dry_run=True)[0].gain == pytest.approx(2**0.5)

    class Unhashable(list[int]):
        def __call__(self, z: Tensor) -> Tensor:
            return z.relu()

    assert init_(mlp(), activation=Unhashable(), dry_run=True)[0].activation == "relu"


def test_generators_decide() -> None:
    a, b, c = (init_(GPT(), generator=seeded(s)).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["mlp.0.weight"], c["mlp.0.weight"])


@pytest.mark.parametrize("inputs", [None, torch.ones(1, 8)], ids=["symbolic", "traced"])
def test_a_generator_leaves_torchs_own_alone(inputs: Tensor | None) -> None:
    module = mlp()
    state = torch.get_rng_state()
    init_(module, "xavier_normal", bias="default", generator=seeded(), inputs=inputs)
    assert torch.equal(torch.get_rng_state(), state)
    init_(module, inputs=inputs)  # without one it is where the numbers come from
    assert not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    expected = torch.randn(8, 8) * 0.5
    torch.set_rng_state(state)
    assert torch.allclose(init_(module, inputs=inputs)[0].weight, expected)


@pytest.mark.parametrize(
    "size", [(1, 31_999), (1, 32_000), (1, 32_017), (3, 16_001), (1, 64_015), (7, 14_009)], ids=str
)
def test_large_weights_are_drawn_in_pieces_but_are_one_draw(size: tuple[int, int]) -> None:
    layer = nn.Linear(size[1], size[0], bias=False)
    normal = init_(layer, "normal", std=0.5, generator=seeded()).weight.detach()
    assert torch.equal(normal, torch.randn(size, generator=seeded()) * 0.5)
    uniform = init_(layer, "uniform", low=0.0, high=1.0, generator=seeded()).weight.detach()
    assert torch.equal(uniform, torch.rand(size, generator=seeded()))


def test_attention_and_gates_are_drawn_apart() -> None:
    module = init_(nn.MultiheadAttention(16, 4, add_bias_kv=True), "orthogonal", generator=seeded())
    for block in module.in_proj_weight.detach().chunk(3):
        assert torch.allclose(block @ block.T, torch.eye(16), atol=1e-5)
    assert 0.15 < float(module.bias_k.detach().std()) < 0.4  # 1 / sqrt(16)
    lstm = init_(nn.LSTM(6, 8, 2), "orthogonal", forget_bias=1.0, generator=seeded())
    for block in lstm.weight_hh_l1.detach().chunk(4):
        assert torch.allclose(block @ block.T, torch.eye(8), atol=1e-5)
    together = lstm.weight_hh_l1.detach()
    assert not torch.allclose(together.T @ together, torch.eye(8), atol=0.5)  # one draw of the whole would be this
    expected = torch.zeros(32)
    expected[8:16] = 1
    assert torch.equal(lstm.bias_ih_l1.detach(), expected)
    assert not lstm.bias_hh_l1.detach().any()


def test_embeddings() -> None:
    module = nn.Sequential(nn.Embedding(5000, 16, padding_idx=3))
    for options, std in (({}, 1.0), ({"embedding_std": 0.02}, 0.02), ({"scheme": "normal", "std": 0.1}, 0.1)):
        weight = init_(module, generator=seeded(), **options)[0].weight.detach()
        assert not weight[3].any()
        rows = weight[4:].flatten().double().numpy()
        assert stats.kstest(rows, "norm", args=(0, std)).pvalue > 1e-4
    assert float(init_(nn.Embedding(4, 4), "zeros").weight.detach().abs().max()) == 0


def test_biases() -> None:
    assert init_(mlp(), bias=0.1)[0].bias.tolist() == pytest.approx([0.1] * 8)
    module = mlp(400)
    before = module[0].bias.clone()
    assert torch.equal(init_(module, bias=None)[0].bias, before)
    bias = init_(module, bias="default", generator=seeded())[0].bias.detach().numpy()
    assert stats.kstest(bias, "uniform", args=(-0.05, 0.1)).pvalue > 1e-4
    joint = init_(mlp(400), "random_asymmetric", generator=seeded())
    assert 0 < float(joint[0].bias.detach().abs().max()) < 1
    assert float((joint[0].weight.detach() > 0.3).sum(1).float().mean()) > 0.6  # one Beta(2, 1) in nearly every row
    conv = init_(nn.Conv2d(3, 4, 3), "random_asymmetric", activation="relu", generator=seeded())
    assert conv.bias.detach().any()
    with pytest.raises(ValueError, match="draws the biases with the weights"):
        init_(mlp(), "random_asymmetric", bias="default")


def test_a_parametrised_weight_is_set_through_its_parametrisation() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    parameters = dict(module.named_parameters())
    init_(module, "orthogonal", generator=seeded())
    weight = module.weight.detach()
    assert torch.allclose(weight @ weight.T, torch.eye(64), atol=1e-5)
    assert all(p is parameters[name] for name, p in module.named_parameters())

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    one_way = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(one_way, "weight", Doubled())
    assert init_(one_way, dry_run=True).of("weight").note == (
        "left alone: parametrised by Doubled, which has no right_inverse"
    )


def test_meta_modules_need_a_device() -> None:
    with torch.device("meta"):
        module = nn.Sequential(ResNet(), GPT(), nn.LSTM(4, 4))
    with pytest.raises(ValueError, match=r"0\.stem\.weight, .*: on the meta device.*pass device="):
        init_(module)
    assert init_(module, dry_run=True).of("0.fc.weight").std == pytest.approx(8**-0.5)  # needs no memory
    torch.manual_seed(0)
    state = torch.get_rng_state()
    init_(module, device="cpu", generator=seeded(), activation="relu")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(t.is_meta for t in [*module.parameters(), *module.buffers()])
    assert module[1].head.weight is module[1].tokens.weight
    assert torch.equal(module[0].bn.weight, torch.ones(4))
    assert torch.equal(module[0].bn.running_var, torch.ones(4))
    assert int(module[0].bn.num_batches_tracked) == 0
    assert torch.isfinite(module[0](torch.ones(2, 3, 16, 16))).all()
    assert module[2](torch.ones(2, 1, 4))[0].isfinite().all()  # its flat weights are the new ones
    expected = nn.Sequential(ResNet(), GPT(), nn.LSTM(4, 4))
    init_(expected, generator=seeded(), activation="relu")
    assert module[0].fc.weight.shape == expected[0].fc.weight.shape

    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("angles", torch.arange(3.0))

    with torch.device("meta"):
        lost = nn.Sequential(nn.Linear(2, 2), Rotary())
    with pytest.raises(ValueError, match=r"1\.angles: on the meta device, and neither"):
        init_(lost, device="cpu", activation="relu")


def test_errors_say_what_to_do() -> None:
    for arguments, options, words in [
        (["kaiming_norml"], {}, "did you mean 'kaiming_normal'"),
        (["kaiming_normal"], {"sdt": 1}, "sdt: unknown key"),
        (["snn"], {"gain": 2.0}, "gain: unknown key"),
        (["kaiming_normal"], {"gain": -1.0}, "gain: expected greater than 0"),
        (["kaiming_normal"], {"bias": "orthogonal"}, "bias_init: expected one of"),
        (["kaiming_normal"], {"activation": "rellu"}, "did you mean 'relu'"),
    ]:
        with pytest.raises(ValueError, match=words):
            init_(mlp(), *arguments, **options)
    with pytest.raises(TypeError, match="a name or a function"):
        init_(mlp(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"0\.weight \(Conv1d, 2x2x3\)"):
        init_(nn.Sequential(nn.Conv1d(2, 2, 3)), "identity")
    with pytest.raises(ValueError, match=r"0\.weight: .*no backward gain"):
        init_(mlp(activation=nn.Sequential), mode="fan_out", activation=torch.sign)

    class Elsewhere:
        device = torch.device("cuda")

    module = mlp()
    before = module[0].weight.clone()
    with pytest.raises(ValueError, match=r"generator: expected one on 'cpu', where 0.weight is; got one on 'cuda'"):
        init_(module, generator=Elsewhere())  # type: ignore[arg-type]
    assert torch.equal(module[0].weight, before)


def test_what_cannot_be_seen_is_said() -> None:
    class Chooses(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    module = Chooses(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with pytest.warns(UserWarning, match=r"0.weight, 2.weight was not seen.*control flow.*pass inputs="):
        table = init_(module, dry_run=True)
    assert {(row.found, row.gain) for row in table if row.fan_out} == {("not seen", 1.0)}
    assert init_(module, inputs=torch.ones(1, 4), dry_run=True)[0].activation == "relu"
    init_(module, "normal")  # asks for no gains, so nothing is missing
    init_(module, gain=1.0)


def test_initializer_sets_one_module_at_a_time() -> None:
    module = nn.Sequential(nn.Linear(200, 200), nn.Tanh(), nn.Sequential(nn.Conv1d(20, 30, 5)), nn.BatchNorm1d(2))
    module.apply(initializer("kaiming_normal", generator=seeded()))
    for layer, fan_in in ((module[0], 200), (module[2][0], 100)):
        weight = layer.weight.detach().flatten().double().numpy()
        assert stats.kstest(weight, "norm", args=(0, math.sqrt(2 / fan_in))).pvalue > 1e-4
        assert not layer.bias.detach().any()
    module.apply(initializer("xavier_uniform", gain=2.0, generator=seeded()))
    assert float(module[0].weight.detach().abs().max()) == pytest.approx(2 * math.sqrt(6 / 400), rel=1e-3)
    with pytest.raises(ValueError, match="did you mean"):
        initializer("xavier_norml")


def test_biases_with_options_count_in_a_critical_variance() -> None:
    net = nn.Sequential(nn.Linear(300, 300), nn.GELU(), nn.Linear(300, 300))
    with pytest.raises(ValueError, match=r"gelu with bias variance 0 .* standard deviation 0\.416"):
        init_(net, "critical")
    init_(net, "critical", bias={"name": "normal", "std": 0.416}, generator=torch.Generator().manual_seed(1))
    assert float(net[0].weight.detach().var()) * 300 == pytest.approx(1.983, rel=0.02)
    assert float(net[0].bias.detach().std()) == pytest.approx(0.416, rel=0.15)
