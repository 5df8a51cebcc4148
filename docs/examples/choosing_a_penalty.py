"""
Choosing a penalty
==================

With few spikes, the fit that describes the recording best describes the next recording badly: it
fits noise. A penalty pulls coefficients toward zero. Which one, and how strong?

================  =========================================  ======================================
penalty           what it does                               use it
================  =========================================  ======================================
``Ridge``         shrinks all coefficients                   nearly always, at least 1e-4
``GroupLasso``    sets whole filters to exactly zero         connections are sparse; which exist?
``Lasso``         sets single coefficients to zero           raw lags, single delays
``ElasticNet``    a mixture of the first and the last        correlated senders
================  =========================================  ======================================
"""

# %%
# A short recording
# -----------------
# Fifteen cells, four minutes, bins of 10 ms.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.model_selection import cross_validate, regularization_path
from fastglm.plotting import plot_cross_validation, plot_path

basis = fastglm.basis.RaisedCosineLogConv(4, window_size=10)
network = fastglm.simulation.random_network(15, basis, bin_size=0.01, random_key=3)
counts = network.simulate(24_000, random_key=0)
X = basis.compute_features(counts)
print(f"{counts.sum():,} spikes for {X.shape[1]} coefficients a receiver")

# %%
# The path
# --------
# A path fits every receiver with a row of strengths, from the one that sets all filters to zero
# down to a thousandth of it. Each fit starts where the last one ended. Filters enter one by one;
# below, they are named by their sender.

receiver = int(np.abs(network.adjacency).sum(axis=0).argmax())
print("senders of cell", receiver, "in truth:", np.flatnonzero(network.adjacency[:, receiver]))

lasso = fastglm.PopulationGLM(regularizer="GroupLasso")
path = regularization_path(lasso, X, counts, 10)
plot_path(path, receiver, groups=X.filters)
plt.show()

# %%
# The strength
# ------------
# Cross-validation leaves out one stretch of time after another, fits the rest and scores the
# stretch. Each receiver gets the strength that predicts it best. History never leaks over the
# edges.

cv = {
    name: cross_validate(fastglm.PopulationGLM(regularizer=name), X, counts, 8, folds=3)
    for name in ("Ridge", "GroupLasso")
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for ax, (name, result) in zip(axes, cv.items(), strict=True):
    plot_cross_validation(result, receiver, ax=ax)
    ax.set_title(name, loc="right", fontsize=9)
plt.show()

# %%
# ``rule="one-standard-error"`` takes the strongest penalty that is as good as the best one within
# the noise: fewer connections, of which more are true.

# %%
# What is gained
# --------------
# The models with the chosen strengths are fitted to the whole recording already: ``cv.model``. The
# truth is known here, so the error of all filters can be told.

models = {
    "almost none": fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-7),
    "ridge": cv["Ridge"].model,
    "group lasso": cv["GroupLasso"].model,
}
models["almost none"].fit(X, counts)
between = ~np.eye(15, dtype=bool)
true = network.filters.sum(axis=1)
fig, axes = plt.subplots(1, 4, figsize=(10, 3), sharey=True)
limit = np.abs(true[between]).max()
axes[0].imshow(np.where(between, true, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[0].set(title="true", xlabel="receiver", ylabel="sender")
for ax, (name, model) in zip(axes[1:], models.items(), strict=True):
    area = np.einsum("b,ibj->ij", basis.kernel_.sum(axis=0), model.coef_.reshape(15, 4, 15))
    error = np.sqrt(np.mean((area - true)[between] ** 2))
    found = (area != 0) & between
    connected = network.adjacency != 0
    print(
        f"{name:>11}: error {error:.2f}, "
        f"{(found & connected).sum():>3} of {connected.sum()} connections, "
        f"{(found & ~connected).sum():>3} false"
    )
    ax.imshow(np.where(between, area, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=name, xlabel="receiver")
plt.show()

# %%
# Strengths have the units of the mean loss per bin: ``alpha`` of scikit-learn's
# ``PoissonRegressor``. With twice as many bins the same strength means twice the penalty on what
# the data say in total, so choose it anew for each recording rather than copy it.
#
# Coefficients that a lasso selected have no honest p-values from the same data. For tests, see
# :ref:`significance <sphx_glr_gallery_significance.py>`.
