"""The feature matrix: rows for people, columns for the solver, never stored.

A `FeatureMatrix` is a row of blocks of columns. People see an array of shape (n_bins, n_features);
the solver multiplies with it through `fastglm._products`, block by block and chunk by chunk.

| block | it keeps |
|---|---|
| `HistoryColumns` | the events of some senders, and a kernel |
| `DenseColumns` | an ordinary array: stimulus, position, running speed |
| `SlowColumns` | one row for each sample of a covariate slower than the bins (`hold`) |
| `ProductColumns` | its two factors |

`hstack` puts matrices and arrays side by side.
"""

from fastglm.features.dense import DenseColumns, SlowColumns
from fastglm.features.events import Events, Traces
from fastglm.features.held import hold
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix, hstack
from fastglm.features.product import ProductColumns

__all__ = [
    "DenseColumns",
    "Events",
    "FeatureMatrix",
    "HistoryColumns",
    "ProductColumns",
    "SlowColumns",
    "Traces",
    "as_feature_matrix",
    "hold",
    "hstack",
]
