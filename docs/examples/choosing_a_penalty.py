"""
Choosing a penalty
==================

With few spikes, the best fit to one recording describes the next recording badly, because it fits
noise. A penalty pulls coefficients toward zero. This page chooses the penalty and its strength.

================  =========================================  ======================================
penalty           what it does                               use it
================  =========================================  ======================================
``Ridge``         shrinks all coefficients                   nearly always
``GroupLasso``    sets whole filters to exactly zero         to find few connections among many
``Lasso``         sets single coefficients to zero           for raw lags and single delays
``ElasticNet``    is a mixture of ridge and lasso            for correlated senders
================  =========================================  ======================================
"""

# %%
# A short recording
# -----------------
# Twelve cells are recorded for five minutes, in bins of 10 ms. A tenth of the pairs is connected.

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
# A path fits every receiver with a row of strengths, strongest first. Each fit starts where the
# last one ended. A strong group lasso sets all filters to zero. As it gets weaker the filters enter
# one by one, the best supported first: here the cell's own history and its true senders, then
# noise.

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
# stretch. Each receiver gets the strength with the best score. With ``rule="one-standard-error"``
# it gets the strongest one that is as good within the noise. History never leaks over the edges.

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
# The gain
# --------
# The models with the chosen strengths are already fitted to the whole recording. The truth is known
# here, so the errors of the filters' strengths can be compared.

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
# If connections are few and strong, a ridge helps little and a group lasso helps a lot. The
# strength with the best prediction keeps many filters that do not exist, because a small
# superfluous filter costs little. The rule of one standard error keeps few of them, and may lose
# weak connections.
#
# Neither is a test. Coefficients that a lasso selected have no honest p-values from the same data.
# :ref:`Significance <sphx_glr_gallery_significance.py>` has the tests.
#
# Strengths have the units of the mean loss per bin, as ``alpha`` of scikit-learn's
# ``PoissonRegressor``. A recording twice as long needs about half the strength for the same effect.
# Choose it anew for each recording rather than copy it.
