"""Who drives whom: the couplings of a fitted model, and how sure one can be of them.

`couplings` makes the map, `filters` reads its filters without their prior, `null` learns what those
of unconnected pairs look like, `scan` looks for departures that have the shape of a synapse, and
`empirical` decides. `synchrony` is about the same bin, where nothing has a direction. `nuisance`
has what many cells share: drift, activity of the others, factors of residuals.
"""

from fastglm.connectivity.couplings import CouplingMap as CouplingMap
from fastglm.connectivity.couplings import coupling_map as coupling_map
from fastglm.connectivity.couplings import history_of as history_of
from fastglm.connectivity.couplings import point_estimates as point_estimates
from fastglm.connectivity.empirical import Null as Null
from fastglm.connectivity.files import load_couplings as load_couplings
from fastglm.connectivity.nuisance import population_activity as population_activity
from fastglm.connectivity.nuisance import residual_factors as residual_factors
from fastglm.connectivity.nuisance import slow_drift as slow_drift
from fastglm.connectivity.synchrony import Synchrony as Synchrony
from fastglm.connectivity.synchrony import synchrony as synchrony

__all__ = [
    "CouplingMap",
    "Null",
    "Synchrony",
    "coupling_map",
    "load_couplings",
    "population_activity",
    "residual_factors",
    "slow_drift",
    "synchrony",
]
