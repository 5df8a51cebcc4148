"""Pictures of couplings and of how well they fit; needs matplotlib (the extra ``plot``).

| function | picture |
|---|---|
| `plot_connectivity` | matrix of couplings, significant ones marked |
| `plot_filters` | filters over lag with their bands, as a multiplier of rate or odds |
| `plot_ks` | time rescaling: distribution of the intervals of some receivers |
| `plot_ks_distances` | time rescaling: distance of every receiver |
| `plot_autocorrelation` | time rescaling: autocorrelation of the intervals |
| `plot_path` | coefficients over the strength of the penalty |
| `plot_cross_validation` | held-out score over the strength, and the chosen strength |
| `plot_contributions` | what each block of features adds to the held-out score |

Each function draws into the given axes, or into a new figure of pyplot, and returns the axes. The
colours are the palette of Okabe and Ito and a map from blue over white to red. People with any of
the common colour deficiencies can tell them apart.
"""

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise ImportError("Pictures need matplotlib: pip install 'fastglm[plot]'") from None

from fastglm.plotting.contributions import plot_contributions
from fastglm.plotting.couplings import plot_connectivity, plot_filters, strongest
from fastglm.plotting.figures import check_path, demo_figure, fit_figure
from fastglm.plotting.rescaling import plot_autocorrelation, plot_ks, plot_ks_distances
from fastglm.plotting.selection import plot_cross_validation, plot_path

__all__ = [
    "check_path",
    "demo_figure",
    "fit_figure",
    "plot_autocorrelation",
    "plot_connectivity",
    "plot_contributions",
    "plot_cross_validation",
    "plot_filters",
    "plot_ks",
    "plot_ks_distances",
    "plot_path",
    "strongest",
]
