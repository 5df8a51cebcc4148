"""
Choosing a penalty
==================

With few spikes, the fit that describes the recording best describes the next recording badly: it
fits noise. A penalty pulls coefficients toward zero. Which one, and how strong?

================  =========================================  ======================================
penalty           what it does                               use it
================  =========================================  ======================================
``Ridge``         shrinks all coefficients                   nearly always
``GroupLasso``    sets whole filters to exactly zero         connections are sparse; which exist?
``Lasso``         sets single coefficients to zero           raw lags, single delays
``ElasticNet``    a mixture of the first and the last        correlated senders
================  =========================================  ======================================
"""

# %%
# A short recording
# -----------------
# Twelve cells, five minutes, bins of 10 ms. A tenth of the pairs is connected.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.model_selection import cross_validate, regularization_path
from fastglm.plotting import plot_cross_validation, plot_path

n_cells = 12
basis = fastglm.basis.RaisedCosineLogConv(4, window_size=10, label="coupling")
network = fastglm.simulation.random_network(n_cells, basis, bin_size=0.01, random_key=1)
counts = network.simulate(30_000, random_key=0)
X = basis.compute_features(counts)
print(f"{counts.sum():,} spikes, {X.shape[1]} coefficients for each of {n_cells} receivers")

# %%
# The path
# --------
# A path fits every receiver with a row of strengths, strongest first; each fit starts where the
# last one ended. Under a strong group lasso all filters are zero. As it gets weaker they enter one
# by one, the best supported first: here the cell's own history and its true senders, then noise.

receiver = 1
print("senders of cell 1 in truth:", np.flatnonzero(network.adjacency[:, receiver]))

lasso = fastglm.PopulationGLM(regularizer="GroupLasso")
path = regularization_path(lasso, X, counts, np.geomspace(1e-2, 1e-4, 12))
plot_path(path, receiver, groups=X.filters)
plt.show()

# %%
# The strength
# ------------
# Cross-validation leaves out one stretch of time after another, fits the rest and scores the
# stretch. Each receiver gets the strength that predicts it best, or with
# ``rule="one-standard-error"`` the strongest one that is as good within the noise. History never
# leaks over the edges.

ridge, group = (fastglm.PopulationGLM(regularizer=name) for name in ("Ridge", "GroupLasso"))
chosen = {
    "ridge": cross_validate(ridge, X, counts, 8, folds=5),
    "group lasso": cross_validate(group, X, counts, 8, folds=5),
    "group lasso, 1 SE": cross_validate(group, X, counts, 8, folds=5, rule="one-standard-error"),
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for ax, name in zip(axes, ("group lasso", "group lasso, 1 SE"), strict=True):
    plot_cross_validation(chosen[name], receiver, ax=ax)
    ax.set_title(name, loc="left", fontsize=10)
    ax.label_outer()
plt.show()

# %%
# What is gained
# --------------
# The models with the chosen strengths are fitted to the whole recording already. The truth is known
# here, so the error of the strengths of all filters can be told.

weak = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-7).fit(X, counts)
models = {"almost none": weak} | {name: result.model for name, result in chosen.items()}
between = ~np.eye(n_cells, dtype=bool)
connected = network.adjacency != 0
true = np.where(between, network.filters.sum(axis=1), np.nan)
limit = np.nanmax(np.abs(true))

fig, axes = plt.subplots(1, 5, figsize=(10, 2.6), sharey=True)
axes[0].imshow(true, cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[0].set(title="true", xlabel="receiver", ylabel="sender")
for ax, (name, model) in zip(axes[1:], models.items(), strict=True):
    coefficients = basis.split_by_feature(model.coef_, axis=0)["coupling"]
    strength = np.einsum("lb,ibj->ij", basis.kernel_, coefficients)
    error = np.sqrt(np.nanmean((strength - true) ** 2))
    kept = (strength != 0) & between
    print(
        f"{name:>17}: error {error:.2f}, {(kept & connected).sum()} of {connected.sum()} "
        f"connections kept, and {(kept & ~connected).sum()} that are none"
    )
    ax.imshow(np.where(between, strength, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=name, xlabel="receiver")
plt.show()

# %%
# A ridge helps little where connections are few and strong; a group lasso helps a lot. What
# predicts best still keeps many filters that are not there, since a small filter too much costs
# little. The rule of one standard error keeps few of them, and may lose weak connections. Neither
# is a test: coefficients that a lasso selected have no honest p-values from the same data. For
# tests, see :ref:`significance <sphx_glr_gallery_significance.py>`.
#
# Strengths have the units of the mean loss per bin, as ``alpha`` of scikit-learn's
# ``PoissonRegressor``. A recording twice as long needs about half the strength for the same effect,
# so choose it anew for each recording rather than copy it.
