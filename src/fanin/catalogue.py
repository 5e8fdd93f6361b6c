"""Every name a recipe may use, with one line about it and its options: the one list that all others are taken from.

Plain data, so that the command line and recipes know the names without loading torch. The function behind a name has
that name in the room named beside the table; a test holds the two together. Adding an initialiser, an activation or an
optimiser is one function there and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from fanin.errors import RecipeError, nearest

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1), Le(2**31 - 1)]  # beyond it nothing is meant, and products of counts leave 64 bits


@dataclass(frozen=True)
class Entry:
    """One name: what it is, and its options as name -> (type, default).

    Of an initialiser also what it must be told of its place in the network (fanin.initializers.Place), and whether it
    draws the biases with the weights.
    """

    summary: str
    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    draws_bias: bool = False


# fanin.activations
ACTIVATIONS: dict[str, Entry] = {
    "identity": Entry("z: no activation, a linear network"),
    "sigmoid": Entry("1 / (1 + exp(-z)); derivative at most 1/4, so gradients vanish with depth"),
    "tanh": Entry("tanh(z); derivative at most 1"),
    "relu": Entry("max(z, 0)"),
    "leaky_relu": Entry("z if z > 0 else negative_slope * z", {"negative_slope": (NonNegative, 0.01)}),
    "elu": Entry("z if z > 0 else exp(z) - 1"),
    "selu": Entry("scaled ELU, self-normalising with LeCun initialisation (Klambauer et al., 2017)"),
    "gelu": Entry("z * Phi(z), Phi the normal distribution function"),
    "silu": Entry("z * sigmoid(z), also called swish"),
    "mish": Entry("z * tanh(softplus(z))"),
    "softplus": Entry("log(1 + exp(z)), a smooth ReLU"),
    "softsign": Entry("z / (1 + |z|), saturates more slowly than tanh"),
}

_GAIN = {"gain": (Positive, 1.0)}
_MODE = {"mode": (Literal["fan_in", "fan_out", "fan_avg"], "fan_in")}
_RELU_GAIN = {"gain": (Positive, 2**0.5)} | _MODE | {"negative_slope": (NonNegative, 0.0)}
_MEAN_STD = {"mean": (float, 0.0), "std": (Positive, 1.0)}
_DISTRIBUTIONS = Literal["normal", "truncated_normal", "uniform"]

# fanin.initializers
INITIALIZERS: dict[str, Entry] = {
    "default": Entry("PyTorch's nn.Linear: U(-a, a), a = 1 / sqrt(fan_in), for weights and biases"),
    "zeros": Entry("all zero: hidden units stay equal for ever (symmetry)"),
    "constant": Entry("every entry equal to `value`: symmetric, like zeros", {"value": (float, 0.1)}),
    "normal": Entry("N(mean, std^2), whatever the layer's size", _MEAN_STD),
    "truncated_normal": Entry(
        "normal, cut at `cut` deviations, then of deviation std, whatever the layer's size",
        _MEAN_STD | {"cut": (Positive, 2.0)},
    ),
    "uniform": Entry("U(low, high), whatever the layer's size", {"low": (float, -1.0), "high": (float, 1.0)}),
    "variance_scaling": Entry(
        "variance scale / fan: what LeCun's, Xavier's and Kaiming's are cases of",
        {"scale": (Positive, 1.0)} | _MODE | {"distribution": (_DISTRIBUTIONS, "truncated_normal")},
    ),
    "lecun_uniform": Entry("U(-a, a) with variance gain^2 / fan_in (LeCun et al., 1998)", _GAIN),
    "lecun_normal": Entry("N(0, gain^2 / fan_in)", _GAIN),
    "snn": Entry("N(0, 1 / fan_in), for SELU (Klambauer et al., 2017)"),
    "xavier_uniform": Entry("U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)", _GAIN),
    "xavier_normal": Entry("N(0, gain^2 * 2 / (fan_in + fan_out))", _GAIN),
    "kaiming_uniform": Entry(
        "U(-a, a), a = gain * sqrt(3 / fan_in), gain sqrt(2) for ReLU (He et al., 2015)", _RELU_GAIN
    ),
    "kaiming_normal": Entry("N(0, gain^2 / fan_in), gain sqrt(2) for ReLU", _RELU_GAIN),
    "mup": Entry(
        "N(0, gain^2 / fan_in), the last layer's smaller by base_width / fan_in (Yang and Hu, 2021)",
        _GAIN | {"base_width": (Count, 64)},
        needs=("last",),
    ),
    "critical": Entry(
        "variance at which chi_1 = 1, for the activation, the biases and dropout (Schoenholz et al., 2017)",
        {"distribution": (_DISTRIBUTIONS, "normal")},
        needs=("activation", "bias_variance", "keep"),
    ),
    "orthogonal": Entry("gain * an orthogonal matrix, Haar-distributed (Saxe et al., 2014)", _GAIN),
    "delta_orthogonal": Entry(
        "an orthogonal matrix at a kernel's centre, an isometry; dense: orthogonal (Xiao et al., 2018)", _GAIN
    ),
    "identity": Entry("gain * the identity matrix, cut to shape; dense only (Le et al., 2015)", _GAIN),
    "dirac": Entry("gain * the identity at a kernel's centre: a convolution that does nothing", _GAIN),
    "hadamard": Entry("ZerO: the identity, and Hadamard's matrix where widths grow (Zhao et al., 2022)"),
    "idinit": Entry(
        "the identity, repeated where widths grow; the last layer nearly zero (Pan et al., 2025)",
        {"tau": (Positive, 1.0), "epsilon": (Positive, 1e-6)},
        needs=("last",),
    ),
    "sparse": Entry(
        "N(0, std^2), but a share `sparsity` of each column zero (Martens, 2010)",
        {"sparsity": (Fraction, 0.9), "std": (Positive, 0.01)},
    ),
    "looks_linear": Entry(
        "mirrored orthogonal blocks: a ReLU network that starts exactly linear (Balduzzi et al., 2017)",
        needs=("first", "last"),
    ),
    "gaussian_submatrix": Entry(
        "mirrored Gaussian blocks, likewise linear at the start (Burkholz and Dubatovka, 2019)",
        needs=("first", "last"),
    ),
    "random_asymmetric": Entry(
        "N(0, 0.36 / fan_in), but one weight or bias of each unit Beta(2, 1) (Lu et al., 2019)", draws_bias=True
    ),
}

# fanin.initializers.calibrate: what adjusts weights that are drawn already, by what a batch of data does to them
CALIBRATIONS: dict[str, Entry] = {
    "none": Entry("weights stay as they were drawn"),
    "lsuv": Entry(
        "layer by layer, unit variance of the output (Mishkin and Matas, 2016)",
        {"tolerance": (Positive, 0.05), "max_iterations": (Count, 5), "orthogonal": (bool, False)},
    ),
    "within_layer": Entry(
        "layer by layer, unit variance and mean beta of every output channel (Krähenbühl et al., 2016)",
        {"beta": (float, 0.0)},
    ),
    "jacobian": Entry(
        "layer by layer, averaged partial Jacobian norm 1, as AutoInit (He et al., 2022)",
        {"tolerance": (Positive, 0.05), "max_iterations": (Count, 5), "probes": (Count, 4)},
    ),
    "gradinit": Entry(
        "scales of all parameters for the lowest loss after an optimiser's first step (Zhu et al., 2021)",
        {
            "optimizer": (Literal["sgd", "adam"], "sgd"),
            "lr": (Positive, 0.1),
            "gamma": (Positive, 1.0),
            "steps": (Count, 200),
            "scale_lr": (Positive, 0.01),
            "smallest": (Positive, 0.01),
        },
    ),
    "metainit": Entry(
        "norms of weights for the lowest gradient quotient, without data (Dauphin and Schoenholz, 2019)",
        {"lr": (Positive, 0.1), "momentum": (Fraction, 0.9), "steps": (Count, 500), "eps": (Positive, 1e-5)},
    ),
}

_GREEDY = {"epochs": (Count, 10), "batch_size": (Count, 100), "momentum": (Fraction, 0.0)}
_AUTOENCODER = {"lr": (Positive, 0.1)} | _GREEDY | {"tied": (bool, True)}

# fanin.pretraining.pretrain: what makes the hidden layers' first weights of the training inputs, without their labels
PRETRAININGS: dict[str, Entry] = {
    "none": Entry("nothing comes before training"),
    "dbn": Entry(
        "deep belief network: restricted Boltzmann machines, layer by layer; sigmoid only (Hinton et al., 2006)",
        {"k": (Count, 1), "lr": (Positive, 0.1), "centered": (bool, False)} | _GREEDY,
    ),
    "autoencoder": Entry("stacked autoencoders, layer by layer (Bengio et al., 2007)", _AUTOENCODER),
    "denoising": Entry(
        "stacked autoencoders that repair corrupted inputs (Vincent et al., 2008)",
        _AUTOENCODER
        | {
            "corruption": (Literal["masking", "gaussian", "salt_and_pepper"], "masking"),
            "amount": (Fraction, 0.25),
        },
    ),
}

# A bias has no fan_out and no matrix shape: only schemes that need neither.
BIAS_INITIALIZERS = {name: INITIALIZERS[name] for name in ("default", "zeros", "constant", "normal", "uniform")}

_INIT_ALIASES = {
    "he_uniform": "kaiming_uniform",
    "he_normal": "kaiming_normal",
    "glorot_uniform": "xavier_uniform",
    "glorot_normal": "xavier_normal",
    "trunc_normal": "truncated_normal",
    "pytorch": "default",
}

# other spellings, by table
ALIASES: dict[str, dict[str, str]] = {
    "init": _INIT_ALIASES,
    "bias_init": {"pytorch": "default"},
    "activation": {"linear": "identity", "swish": "silu", "none": "identity"},
    "precision": {"float32": "fp32", "bfloat16": "bf16"},
}

_LR = {"lr": (Positive, 1e-3)}
_DECAY = {"weight_decay": (NonNegative, 0.0)}
_BETAS = {"betas": (tuple[Fraction, Fraction], (0.9, 0.999)), "eps": (Positive, 1e-8)}

# torch.optim, through fanin.engine.optimizers
OPTIMIZERS: dict[str, Entry] = {
    "sgd": Entry(
        "stochastic gradient descent, with momentum and Nesterov's variant",
        _LR | {"momentum": (NonNegative, 0.0), "dampening": (NonNegative, 0.0), "nesterov": (bool, False)} | _DECAY,
    ),
    "adadelta": Entry(
        "Adadelta (Zeiler, 2012): steps from running averages of gradients and updates",
        {"lr": (Positive, 1.0), "rho": (Fraction, 0.9), "eps": (Positive, 1e-6)} | _DECAY,
    ),
    "adagrad": Entry(
        "Adagrad (Duchi et al., 2011): each weight's rate falls with its summed squared gradients",
        {
            "lr": (Positive, 1e-2),
            "lr_decay": (NonNegative, 0.0),
            "initial_accumulator_value": (NonNegative, 0.0),
            "eps": (Positive, 1e-10),
        }
        | _DECAY,
    ),
    "adam": Entry("Adam (Kingma and Ba, 2015)", _LR | _BETAS | _DECAY | {"amsgrad": (bool, False)}),
    "adamw": Entry(
        "Adam with decoupled weight decay (Loshchilov and Hutter, 2019)",
        _LR | _BETAS | {"weight_decay": (NonNegative, 1e-2), "amsgrad": (bool, False)},
    ),
    "sparse_adam": Entry("Adam that moves only entries with a non-zero gradient; sees sparse gradients", _LR | _BETAS),
    "adamax": Entry("Adam with the infinity norm", {"lr": (Positive, 2e-3)} | _BETAS | _DECAY),
    "asgd": Entry(
        "averaged SGD (Polyak and Juditsky, 1992); evaluated at the running weights, as torch.optim leaves them",
        {
            "lr": (Positive, 1e-2),
            "lambd": (NonNegative, 1e-4),
            "alpha": (NonNegative, 0.75),
            "t0": (NonNegative, 1e6),
        }
        | _DECAY,
    ),
    "lbfgs": Entry(
        "limited-memory BFGS; re-evaluates each mini-batch up to max_eval times a step",
        {
            "lr": (Positive, 1.0),
            "max_iter": (Count, 20),
            "max_eval": (Count | None, None),
            "tolerance_grad": (NonNegative, 1e-7),
            "tolerance_change": (NonNegative, 1e-9),
            "history_size": (Count, 100),
            "line_search_fn": (Literal["strong_wolfe"] | None, None),
        },
    ),
    "rmsprop": Entry(
        "RMSprop (Hinton): gradients divided by a running root mean square",
        {
            "lr": (Positive, 1e-2),
            "alpha": (Fraction, 0.99),
            "eps": (Positive, 1e-8),
            "momentum": (NonNegative, 0.0),
            "centered": (bool, False),
        }
        | _DECAY,
    ),
    "rprop": Entry(
        "resilient propagation: signs of gradients only; meant for full batches",
        {
            "lr": (Positive, 1e-2),
            "etas": (tuple[Annotated[float, Gt(0), Lt(1)], Annotated[float, Gt(1)]], (0.5, 1.2)),
            "step_sizes": (tuple[Positive, Positive], (1e-6, 50.0)),
        },
    ),
}

# those of which fanin.engine.card.updates has a step for a whole stack, on a card
STACKED_OPTIMIZERS = frozenset({"sgd", "adam", "adamw", "rmsprop"})

NORMALIZATIONS: dict[str, Entry] = {
    "none": Entry("no normalisation"),
    "batch": Entry("BatchNorm1d between Linear and activation (Ioffe and Szegedy, 2015): eps 1e-5, momentum 0.1"),
}

LOSSES: dict[str, Entry] = {
    "cross_entropy": Entry("mean of -log softmax(z)[label], as nn.CrossEntropyLoss"),
    "mse": Entry("mean over batch and outputs of (z - one_hot(label))^2, as nn.MSELoss"),
}

PRECISIONS: dict[str, Entry] = {
    "fp32": Entry("everything in float32"),
    "tf32": Entry("products of TensorFloat-32 operands (10 bits of mantissa); CUDA cards since Ampere only"),
    "bf16": Entry("products of bfloat16 operands (7 bits); not the last layer's, nor a first one's over sparse data"),
}

_FINAL = {"final": (Annotated[float, Ge(0), Le(1)], 0.0)}
_WARMUP = {"warmup": (Annotated[int, Ge(0)], 0)}

# fanin.engine.schedules: a factor on the optimiser's lr for each epoch e = 1 .. E. With `warmup` = w it is e / (w + 1)
# in the first w of them, and the formula sees the others as if they were all.
SCHEDULES: dict[str, Entry] = {
    "constant": Entry("1; after `warmup` epochs in which it rises linearly", _WARMUP),
    "step": Entry(
        "gamma^floor((e - 1) / every), as StepLR",
        {"every": (Count, 5), "gamma": (Annotated[float, Gt(0), Le(1)], 0.1)} | _WARMUP,
    ),
    "exponential": Entry("gamma^(e - 1), as ExponentialLR", {"gamma": (Annotated[float, Gt(0), Le(1)], 0.9)} | _WARMUP),
    "linear": Entry("from 1 towards `final`: 1 - (1 - final) (e - 1) / E, as LinearLR", _FINAL | _WARMUP),
    "cosine": Entry(
        "final + (1 - final) (1 + cos(pi (e - 1) / E)) / 2 (Loshchilov and Hutter, 2017)", _FINAL | _WARMUP
    ),
}

TABLES: dict[str, dict[str, Entry]] = {
    "activation": ACTIVATIONS,
    "init": INITIALIZERS,
    "bias_init": BIAS_INITIALIZERS,
    "calibration": CALIBRATIONS,
    "pretraining": PRETRAININGS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "normalization": NORMALIZATIONS,
    "loss": LOSSES,
    "precision": PRECISIONS,
}


def canonical(table: str, name: str) -> str:
    """The catalogue's spelling of `name` in `table` ("he_normal" -> "kaiming_normal"), or a RecipeError that helps."""
    entries, aliases = TABLES[table], ALIASES.get(table, {})
    key = name.strip().lower()
    if key in entries:
        return key
    if key in aliases:
        return aliases[key]
    known = ", ".join(entries)
    raise RecipeError(f"{table}: expected one of {known}; got {name!r}{nearest(key, [*entries, *aliases])}")
