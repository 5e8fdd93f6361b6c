"""scikit-learn: its multilayer perceptron on arrays."""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from stopwatch import Done, Stopwatch
from way import BATCH, HIDDEN, LR, WARM_UP, Way, in_memory


def epoch(way: Way, watch: Stopwatch) -> Done:
    """MLPClassifier; `partial_fit` is one epoch of `fit` without its warning that one is too few."""
    inputs, labels = (t.numpy() for t in in_memory())
    model = MLPClassifier(
        HIDDEN,
        solver="adam",
        batch_size=BATCH,
        learning_rate_init=LR,
        alpha=0.0,
        max_iter=1,
        random_state=way.seed,
    )
    rows = WARM_UP * BATCH
    model.partial_fit(inputs[:rows], labels[:rows], classes=np.unique(labels))
    rows = way.steps * BATCH
    watch.start()
    model.partial_fit(inputs[:rows], labels[:rows])
    watch.stop()
    return Done(1, float(model.loss_))
