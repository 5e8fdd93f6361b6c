"""The test bed of the diagnosis: programs at fault with their repaired twins, and healthy ones, all proved."""

from tests.diagnosis.bed.case import CODES, Case, Setup, registered
from tests.diagnosis.bed.faulty import (  # noqa: F401, each file registers its cases
    data_faults,
    epochs_and_rates,
    layer_faults,
    loss_faults,
    optimizers,
    output_activations,
    parameters,
    signals,
    two_faults,
)
from tests.diagnosis.bed.healthy import (  # noqa: F401
    binary,
    convolutions,
    deep,
    fine_tuning,
    perceptrons,
    regression,
    representations,
    sequences,
)

CASES: tuple[Case, ...] = registered()

__all__ = ["CASES", "CODES", "Case", "Setup"]
