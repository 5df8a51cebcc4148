r"""
Ten minutes from spikes to connectivity
=======================================

You have spike times of a population. You want to know who drives whom, how strongly, with what
delay, and how sure you can be. This page goes there in five steps, on a simulated network whose
connections are known.

The model of receiver :math:`j` is a Poisson GLM with a filter :math:`h_{ij}` from every sender
:math:`i`:

.. math::

   \log \mu_j(t) = b_j + \sum_i \sum_{l=1}^{W} h_{ij}(l)\, n_i(t - l)

:math:`n_i(t)` is the number of spikes of cell :math:`i` in bin :math:`t`, and :math:`\mu_j(t)` is
the expected number of spikes of cell :math:`j` in that bin. A filter above zero excites, one below
zero inhibits.
"""

# %%
# 1. Spikes
# ---------
# Thirty cells for ten minutes, in bins of 5 ms. A tenth of the pairs is connected.

import matplotlib.pyplot as plt
import numpy as np

import fastglm

bin_size = 0.005  # seconds
basis = fastglm.basis.RaisedCosineLogConv(5, window_size=20, label="coupling")
network = fastglm.simulation.random_network(30, basis, bin_size=bin_size, strength=0.3)
counts = network.simulate(120_000, random_key=1)
print(counts.shape, f"{counts.sum():,} spikes, {counts.mean() / bin_size:.1f} Hz on average")

fig, ax = plt.subplots(figsize=(7, 3))
shown = counts[:1000]
ax.eventplot([np.flatnonzero(shown[:, i]) * bin_size for i in range(30)], color="k", lw=0.8)
ax.set(xlabel="time (s)", ylabel="cell", title="the first five seconds")
plt.show()

# %%
# With your own spikes, begin with ``counts = fastglm.bin_spikes(spike_times, unit, bin_size)``:
# times in seconds, and the number of the unit of each spike.

# %%
# 2. Features
# -----------
# A basis describes what filters may look like: here five raised cosines over 100 ms, narrow at
# short lags and wide at long ones. Five numbers a filter instead of twenty are easier to estimate.

fig, ax = plt.subplots(figsize=(7, 2.4))
lag = np.arange(1, basis.window_size + 1) * bin_size * 1e3
ax.plot(lag, basis.kernel_, ".-")
ax.set(xlabel="lag (ms)", title="the basis")
plt.show()

X = basis.compute_features(counts)
X

# %%
# ``X`` stands for an array of 120,000 bins x 150 features. It is never stored: only the spikes are.

# %%
# 3. Fit
# ------
# Every receiver is a convex problem of its own, solved to the last digit. A small ridge keeps
# filters finite where a cell has few spikes.

model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
model.fit(X, counts)
print(set(model.status_), f"largest gap to the optimum: {model.newton_decrement_.max():.0e}")

# %%
# 4. Connectivity
# ---------------
# The coupling map gives each pair a strength (the area of its filter), a standard error, and a
# q-value: the share of false discoveries among all couplings that look at least as sure.

coupling = model.coupling_map(X, counts)
coupling

# %%

true_area = network.filters.sum(axis=1)
np.fill_diagonal(true_area, np.nan)  # a cell's effect on itself is its refractoriness
fitted = np.where(np.eye(30), np.nan, coupling.strength)
fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), sharey=True)
limit = np.nanmax(np.abs(true_area))
found = np.where(coupling.significant(), fitted, 0.0)
panels = {"true": true_area, "fitted": fitted, "fitted, q < 0.05": found}
for ax, (title, area) in zip(axes, panels.items(), strict=True):
    image = ax.imshow(area, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=title, xlabel="receiver")
axes[0].set_ylabel("sender")
fig.colorbar(image, ax=axes, label="strength (log rate x bins)", shrink=0.9)
plt.show()

# %%
# How many of the true connections were found, and how many of the discoveries are wrong?

connected = network.adjacency != 0
significant = coupling.significant()
print(f"{(significant & connected).sum()} of {connected.sum()} connections found")
print(f"{(significant & ~connected).sum()} of {significant.sum()} discoveries are wrong")

# %%
# 5. Filters
# ----------
# The strength is a summary. The filters tell the delay and the time course; the bands hold the
# truth at 95 % of the lags.

filters, lower, upper = coupling.filters(level=0.95)
strongest = np.argsort(-np.abs(np.nan_to_num(found)), axis=None)[:6]
fig, axes = plt.subplots(2, 3, figsize=(9, 4.6), sharex=True)
for ax, (i, j) in zip(axes.flat, np.transpose(np.unravel_index(strongest, (30, 30))), strict=True):
    ax.axhline(0, color="0.5", lw=0.8)
    ax.fill_between(lag, lower[:, i, j], upper[:, i, j], alpha=0.3)
    ax.plot(lag, filters[:, i, j], label="fitted")
    ax.plot(lag, network.filters[i, :, j], "k--", lw=1.2, label="true")
    ax.set_title(f"{i} \N{RIGHTWARDS ARROW} {j}", fontsize=10)
axes[0, 0].legend()
fig.supxlabel("lag (ms)")
fig.supylabel("change of log rate")
plt.show()
