"""
Does the model describe the data?
=================================

A converged fit is the best model of its kind. The kind may still be a bad one. This page asks three
questions. Are spikes where the model expects them? How much of held-out data does it explain? Does
the network behave when it runs on its own?
"""

# %%
# Three models of the same cells are compared: with coupling, with each cell's own history only, and
# with a constant rate. Ten cells are recorded for eight minutes, in bins of 5 ms.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm import diagnostics
from fastglm.plotting import plot_autocorrelation, plot_ks, plot_ks_distances

n_cells, bin_size = 10, 0.005
basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20)
network = fastglm.simulation.random_network(
    n_cells, basis, bin_size=bin_size, connection_probability=0.3, strength=0.5, random_key=7
)
counts = network.simulate(96_000, random_key=0)
X = basis.compute_features(counts)

own = np.repeat(np.eye(n_cells), basis.n_basis_funcs, axis=0)
settings = {"regularizer": "Ridge", "regularizer_strength": 1e-4}
coupled = fastglm.PopulationGLM(**settings).fit(X, counts)
alone = fastglm.PopulationGLM(**settings, feature_mask=own).fit(X, counts)
constant = fastglm.PopulationGLM(**settings, feature_mask=0 * own).fit(X, counts)
models = {"constant rate": constant, "own history": alone, "coupled": coupled}

# %%
# Time rescaling
# --------------
# Intervals between spikes can be measured in expected spikes instead of seconds. If the model is
# right, such intervals are exponential, and uniform after one more transformation. The curve of a
# right model stays inside its band.

rescaled = {name: diagnostics.time_rescaling(m, X, counts) for name, m in models.items()}
worst = int((rescaled["constant rate"].statistic / rescaled["constant rate"].band()).argmax())
fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
for ax, (name, r) in zip(axes, rescaled.items(), strict=True):
    plot_ks(r, worst, difference=True, ax=ax)
    ax.set_title(name, pad=18, fontsize=10)
    ax.label_outer()
axes[0].set_ylim(-0.08, 0.08)
plt.show()

# %%
# The next picture has all cells at once. It shows the distance of each curve as a part of its band.
# In a good model 95 % of the cells are below 1.

fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
for ax, (name, r) in zip(axes, rescaled.items(), strict=True):
    plot_ks_distances(r, ax=ax)
    ax.set_title(name, pad=18, fontsize=10)
    ax.label_outer()
axes[0].set_ylim(0, 1.1 * (rescaled["constant rate"].statistic / r.band()).max())
plt.show()

# %%
# A model of each cell's own history passes too, because the intervals of single cells hardly depend
# on coupling. The scores below do depend on it.
#
# Intervals should also be independent of each other. Remaining correlations point at slow changes
# outside the model: drift, states, arousal.

plot_autocorrelation(rescaled["coupled"], worst)
plt.show()

# %%
# How much is explained
# ---------------------
# Bits per spike compare the model's prediction of each spike with that of the mean rate. The scored
# bins must be held out. In bins of the fit, more coefficients always win.

scores = {name: diagnostics.cross_validated(m, X, counts, folds=4) for name, m in models.items()}
fig, ax = plt.subplots(figsize=(6, 3))
for name, score in scores.items():
    ax.plot(score.bits_per_spike.mean(axis=0), "o-", label=name)
ax.set(xlabel="cell", ylabel="held-out bits per spike")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
for name, score in scores.items():
    print(f"{name:>13}: {abs(score.deviance_explained.mean()):.1%} of the held-out deviance")

# %%
# A few per cent of the deviance are a good score for single spikes. Most of the deviance is the
# coin toss of each bin, which even the true rate does not explain.

# %%
# On its own
# ----------
# A fitted network that feeds itself can run away. It is stable if small deviations from the mean
# rates die out.

stability = diagnostics.stability(coupled, basis, rates=counts.mean(axis=0))
print(f"stable: {stability.stable}, spectral radius {stability.radius:.2f}")

# %%
# A stable network can run on its own. Rates, and correlations between cells at coarse bins, are not
# in the fit directly, so they are a test of it.

simulated, _ = fastglm.simulation.simulate_recurrent(
    coupled.coef_.reshape(n_cells, 4, n_cells).transpose(2, 0, 1),
    intercepts=coupled.intercept_,
    coupling_basis_matrix=basis.kernel_,
    n_bins=len(counts),
    random_key=1,
    inverse_link_function="exp",
)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
rates = counts.mean(axis=0) / bin_size, simulated.mean(axis=0) / bin_size
axes[0].plot(*rates, "o")
coarse = [c.reshape(-1, 20, n_cells).sum(axis=1) for c in (counts, simulated)]  # 100 ms
pairs = np.triu_indices(n_cells, 1)
axes[1].plot(*(np.corrcoef(c.T)[pairs] for c in coarse), "o")
for ax, name in zip(axes, ("rate (Hz)", "correlation over 100 ms"), strict=True):
    ends = ax.get_xlim()
    ax.plot(ends, ends, color="0.5", lw=0.8)
    ax.set(xlabel=f"{name}, recorded", ylabel=f"{name}, simulated")
plt.show()
