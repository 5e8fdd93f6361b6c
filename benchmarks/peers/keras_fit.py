"""Keras 3: `fit` on arrays. Of its backends JAX is the fastest here (see the README); crew.py chooses it."""

from __future__ import annotations

import keras

from stopwatch import Done, Stopwatch
from way import BATCH, HIDDEN, LR, Way, dataset, in_memory

STEPS_PER_EXECUTION = 100  # 1 is a few per cent slower, more gain nothing to speak of


def epoch(way: Way, watch: Stopwatch) -> Done:
    """A compiled model; the warm-up, which compiles, has as many steps as are done in one go later."""
    inputs, labels = (t.numpy() for t in in_memory())
    together = min(STEPS_PER_EXECUTION, way.steps)
    model = _model(way.seed, together)
    _fit(model, inputs[: together * BATCH], labels[: together * BATCH])
    rows = way.steps * BATCH
    watch.start()
    loss = _fit(model, inputs[:rows], labels[:rows])
    watch.stop()
    return Done(1, loss)


def _model(seed: int, together: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    dense = keras.layers.Dense  # its default initialisation is Xavier uniform
    layers = [dense(width, activation="relu") for width in HIDDEN]
    model = keras.Sequential([keras.Input((dataset().train.inputs.shape[1],)), *layers, dense(dataset().n_classes)])
    model.compile(
        optimizer=keras.optimizers.Adam(LR),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
        steps_per_execution=together,
    )
    return model


def _fit(model: keras.Model, inputs: object, labels: object) -> float:
    return float(model.fit(inputs, labels, batch_size=BATCH, verbose=0).history["loss"][0])
