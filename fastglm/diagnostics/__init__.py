"""Does the model describe the data: time rescaling, explained deviance, bits per spike, stability.

All measures but the last compare the counts of a receiver with its expected counts mu. They use the
bins where the history is complete and the count is known.

| question | measure | value of a perfect model |
|---|---|---|
| Do events come when the model expects them? | `time_rescaling` | uniform intervals |
| How much of the variation is explained? | `deviance_explained`, `bits_per_spike` | 1; no bound |
| How much is explained in held-out bins? | `cross_validated` | as above |
| Does coupling help? What does each block of features add? | `contributions` | above 0 |
| Does the network stay stable on its own? | `stability`, `spectral_radius` | |

`time_rescaling`, `deviance_explained` and `bits_per_spike` take any data, held-out data included.
All go over the bins chunk by chunk: memory does not grow with ``n_bins * n_features``.
"""

from fastglm.diagnostics.blocks import Contributions, contributions
from fastglm.diagnostics.explained import (
    HeldOut,
    bits_per_spike,
    cross_validated,
    deviance_explained,
)
from fastglm.diagnostics.rescaling import Rescaling, time_rescaling
from fastglm.diagnostics.stability import Stability, spectral_radius, stability

__all__ = [
    "Contributions",
    "HeldOut",
    "Rescaling",
    "Stability",
    "bits_per_spike",
    "contributions",
    "cross_validated",
    "deviance_explained",
    "spectral_radius",
    "stability",
    "time_rescaling",
]
