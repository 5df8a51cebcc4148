"""The feature matrix: rows for people, columns for the solver, never stored.

A `FeatureMatrix` is a row of blocks of columns. People see an array of shape (n_bins, n_features);
the solver multiplies with it through `fastglm._products`, block by block and chunk by chunk.

| block | it keeps |
|---|---|
| `HistoryColumns` | the events of some senders, and a kernel |
| `TraceColumns` | the values of senders that are not 0 in most bins, and a kernel |
| `DenseColumns` | an ordinary array: stimulus, position, running speed |
| `SlowColumns` | one row for each sample of a covariate slower than the bins (`hold`) |
| `ProductColumns` | its two factors |

`hstack` puts matrices and arrays side by side. Selections of rows and columns share the events of
their matrix. What an array does is in `arrays`, block by block where it can be. `frame` makes a
matrix of pynapple's counts a TsdFrame. `ranges` serves blocks whose rows or columns are selected.
"""

from fastglm.features.dense import DenseColumns, SlowColumns
from fastglm.features.events import Events, Traces
from fastglm.features.held import hold
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix, hstack
from fastglm.features.product import ProductColumns
from fastglm.features.traces import TraceColumns

__all__ = [
    "DenseColumns",
    "Events",
    "FeatureMatrix",
    "HistoryColumns",
    "ProductColumns",
    "SlowColumns",
    "TraceColumns",
    "Traces",
    "as_feature_matrix",
    "hold",
    "hstack",
]
