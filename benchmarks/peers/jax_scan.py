"""JAX: one jitted scan over an epoch's batches, indexed from data in memory; several members under vmap."""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from stopwatch import Done, Stopwatch
from way import BATCH, HIDDEN, LR, Way, dataset, in_memory

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of Adam

Parameters = list[tuple[Array, Array]]  # of each layer, weight (out, in) and bias; of M members, with M in front
State = tuple[Parameters, Parameters, Parameters, Array]  # parameters, Adam's moments, steps done


def epoch(way: Way, watch: Stopwatch) -> Done:
    """The second epoch, as with fanin: the first compiles."""
    inputs, labels = _arrays()
    orders = np.random.default_rng(way.seed)
    state = _initial(jax.random.key(way.seed), way.members)
    state, _ = _train(state, inputs, labels, _order(way, orders), way.precision)
    jax.block_until_ready(state)
    watch.start()
    state, losses = _train(state, inputs, labels, _order(way, orders), way.precision)
    jax.block_until_ready(state)
    watch.stop()
    return Done(way.members, float(losses.mean()))


def arm(way: Way, watch: Stopwatch) -> Done:
    """From the bytes to the trained weights, compilation included."""
    watch.start()
    inputs, labels = _arrays()
    orders = np.random.default_rng(way.seed)
    state = _initial(jax.random.key(way.seed), way.members)
    for _ in range(way.epochs):
        state, losses = _train(state, inputs, labels, _order(way, orders), way.precision)
    jax.block_until_ready(state)
    watch.stop()
    return Done(way.members, float(losses.mean()))


@cache
def _arrays() -> tuple[Array, Array]:
    inputs, labels = in_memory()
    return jnp.asarray(inputs.numpy()), jnp.asarray(labels.numpy().astype(np.int32))


def _order(way: Way, orders: np.random.Generator) -> np.ndarray:
    """The examples of each step, (steps, B), or (steps, M, B) for several members."""
    examples = len(dataset().train.labels)
    rows = [orders.permutation(examples)[: way.steps * BATCH].reshape(-1, BATCH) for _ in range(way.members)]
    return (rows[0] if way.members == 1 else np.stack(rows, 1)).astype(np.int32)


@partial(jax.jit, static_argnums=1)
def _initial(key: Array, members: int) -> State:
    parameters = _xavier(key) if members == 1 else jax.vmap(_xavier)(jax.random.split(key, members))
    zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]  # two: each is donated on its own
    return parameters, *zeros, jnp.float32(0)


def _xavier(key: Array) -> Parameters:
    sizes = (dataset().train.inputs.shape[1], *HIDDEN, dataset().n_classes)
    weight = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)
    keys = jax.random.split(key, len(sizes) - 1)
    layers = zip(keys, pairwise(sizes), strict=True)
    return [(weight(k, (fan_out, fan_in)), jnp.zeros(fan_out)) for k, (fan_in, fan_out) in layers]


@partial(jax.jit, static_argnames="precision", donate_argnames="state")
def _train(state: State, inputs: Array, labels: Array, order: Array, precision: str) -> tuple[State, Array]:
    """An epoch: the state after it and the losses on the way. `precision`: of the products' operands."""
    gradient = jax.value_and_grad(partial(_loss, precision=precision))
    if order.ndim == 3:
        gradient = jax.vmap(gradient)

    def step(state: State, rows: Array) -> tuple[State, Array]:
        loss, gradients = gradient(state[0], inputs[rows], labels[rows])
        return _adam(state, gradients), loss

    return lax.scan(step, state, order)


def _loss(parameters: Parameters, x: Array, labels: Array, *, precision: str) -> Array:
    *hidden, (weight, bias) = parameters
    for hidden_weight, hidden_bias in hidden:
        x = jax.nn.relu(_product(x, hidden_weight, precision) + hidden_bias)
    log_probabilities = jax.nn.log_softmax(_product(x, weight, precision) + bias)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean()


def _product(x: Array, weight: Array, precision: str) -> Array:
    """x @ weight.T; in bfloat16 with a derivative that takes a tenth off the epoch, in float32 it would add 2 %."""
    return x @ weight.T if precision == "float32" else _mixed(x, weight)


@jax.custom_vjp
def _mixed(x: Array, weight: Array) -> Array:
    """x @ weight.T of operands in bfloat16, summed in float32."""
    return _forward(x, weight)[0]


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    x, weight = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    return _dot(x, weight, over=(1, 1)), (x, weight)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = saved
    gradient = gradient.astype(jnp.bfloat16)
    # the barrier keeps XLA from folding the transposition into the product: that form does not go to its fast library
    return _dot(gradient, weight, over=(1, 0)), _dot(lax.optimization_barrier(gradient.T), x, over=(1, 0))


_mixed.defvjp(_forward, _backward)


def _dot(a: Array, b: Array, *, over: tuple[int, int]) -> Array:
    """The product over these axes; `jnp.dot` would turn the operands into float32 for the sake of the result."""
    axes = ((over[0],), (over[1],)), ((), ())
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _adam(state: State, gradients: Parameters) -> State:
    parameters, first, second, done = state
    done = done + 1
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
    # factors of the whole step: XLA does not take divisions out of the loop over the elements by itself
    rate, unbias = LR / (1 - BETA1**done), 1 / (1 - BETA2**done)
    parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v * unbias) + EPS), parameters, first, second)
    return parameters, first, second, done
