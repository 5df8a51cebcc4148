"""From spikes to a fitted model, or to a map of couplings, in one call.

| file | what it holds |
|---|---|
| `coupling` | `fit_coupling` |
| `recipe` | `infer_connectivity` |
| `controls` | what the recipe finds where nothing can be |
| `prior` | the ridge of the recipe |
| `sessions` | `fit_sessions`: many recordings, here and on clusters |
| `records` | `collect_sessions`: the folder of many recordings |
| `design` | histories and covariates side by side, and which couplings are fitted |
| `files` | `load_model`, `inspect_npz` |
"""

from fastglm.workflow.coupling import cut_counts as cut_counts
from fastglm.workflow.coupling import fit_coupling
from fastglm.workflow.files import inspect_npz, load_model
from fastglm.workflow.recipe import infer_connectivity
from fastglm.workflow.records import Session as Session
from fastglm.workflow.records import Sessions as Sessions
from fastglm.workflow.records import collect_sessions
from fastglm.workflow.sessions import fit_sessions

__all__ = [
    "Session",
    "Sessions",
    "collect_sessions",
    "fit_coupling",
    "fit_sessions",
    "infer_connectivity",
    "inspect_npz",
    "load_model",
]
