"""Does the model describe the data: time rescaling, explained deviance, bits per spike, stability.

With the expected counts mu of a receiver, over the bins where its history is complete and its
count is known,

| question | measure | none is left to explain at |
|---|---|---|
| are events where the model expects them? | `time_rescaling` | uniform intervals |
| how much of the variation is explained? | `deviance_explained`, `bits_per_spike` | 1; no bound |
| and of data that was not fitted? | `cross_validated` | the same |
| what does the network do when it runs on its own? | `stability`, `spectral_radius` | |

All but the last work on any data, held-out data included. They go over the bins chunk by chunk:
memory does not grow with n_bins * n_features.
"""

from fastglm.diagnostics.explained import (
    HeldOut,
    bits_per_spike,
    cross_validated,
    deviance_explained,
)
from fastglm.diagnostics.rescaling import Rescaling, time_rescaling
from fastglm.diagnostics.stability import Stability, spectral_radius, stability

__all__ = [
    "HeldOut",
    "Rescaling",
    "Stability",
    "bits_per_spike",
    "cross_validated",
    "deviance_explained",
    "spectral_radius",
    "stability",
    "time_rescaling",
]
