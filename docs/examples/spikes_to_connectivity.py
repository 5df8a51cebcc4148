r"""
Ten minutes from spikes to connectivity
=======================================

You have spike times of a population. You want to know who drives whom, how strongly, with what
delay, and how sure you can be. This page finds out in five steps. Its network is simulated, so that
the connections are known.

The model of receiver :math:`j` is a GLM with a filter :math:`h_{ij}` from every sender :math:`i`.
Its counts are Poisson here; :doc:`other families </families>` work in the same way.


.. math::

   \log \mu_j(t) = b_j + \sum_i \sum_{l=1}^{W} h_{ij}(l)\, n_i(t - l)

:math:`n_i(t)` is the number of spikes of cell :math:`i` in bin :math:`t`, and :math:`\mu_j(t)` is
the expected number of spikes of cell :math:`j` in that bin. A filter above zero excites, one below
zero inhibits.
"""

# %%
# 1. Spikes
# ---------
# The network has thirty cells, and a tenth of the pairs is connected. The recording is twenty
# minutes in bins of 5 ms.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity, plot_filters

bin_size = 0.005  # seconds
basis = fastglm.basis.RaisedCosineLogConv(5, window_size=20, label="coupling")
network = fastglm.simulation.random_network(30, basis, bin_size=bin_size)
counts = network.simulate(240_000, random_key=1)
print(counts.shape, f"{counts.sum():,} spikes, {counts.mean() / bin_size:.1f} Hz on average")

fig, ax = plt.subplots(figsize=(7, 2.6))
trains = [np.flatnonzero(counts[:1000, i]) * bin_size for i in range(30)]
ax.eventplot(trains, color="k", lw=0.8)
ax.set(xlabel="time (s)", ylabel="cell", title="the first five seconds")
plt.show()

# %%
# For your own spikes ``fastglm.fit_coupling(units, bin_size=0.005, window=0.1)`` is steps 2 and 3
# in one line. See :doc:`your data </data>`.

# %%
# 2. Features
# -----------
# A basis defines the shapes that a filter can have. This one has five raised cosines over 100 ms,
# narrow at short lags and wide at long ones. Five numbers a filter are easier to estimate than
# twenty.

fig, ax = plt.subplots(figsize=(7, 2.2))
lag = np.arange(1, basis.window_size + 1) * bin_size * 1e3
ax.plot(lag, basis.kernel_, ".-")
ax.set(xlabel="lag (ms)", title="the basis")
plt.show()

# %%
# ``X`` stands for an array of 240,000 bins x 150 features. The array is never stored, only the
# spikes are.

X = basis.compute_features(counts)
X

# %%
# 3. Fit
# ------
# Every receiver is a convex problem of its own and is solved to the last digit. A small ridge keeps
# the filters of cells with few spikes finite.

model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
model.fit(X, counts)
print(f"{model.converged_.sum()} of 30 receivers converged")
print(f"largest distance of an objective from its minimum: {model.newton_decrement_.max():.0e}")

# %%
# 4. Connectivity
# ---------------
# The coupling map gives each pair a strength (the area of its filter), a standard error and a
# q-value. At most 5 % of the couplings with q below 0.05 are expected to be false.

coupling = model.coupling_map(X, counts)

fig, axes = plt.subplots(1, 2, figsize=(9, 4.4))
true = np.where(np.eye(30), np.nan, network.filters.sum(axis=1))
limit = np.nanmax(np.abs(true))
axes[0].imshow(true, cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[0].set(title="true", xlabel="receiver", ylabel="sender")
plot_connectivity(coupling, limit=limit, ax=axes[1])
axes[1].set(title="fitted", ylabel="")
plt.show()

# %%
# How many of the true connections were found, and how many of the discoveries are wrong?

connected = network.adjacency != 0
significant = coupling.significant(0.05)
print(f"{(significant & connected).sum()} of {connected.sum()} connections found")
print(f"{(significant & ~connected).sum()} of {significant.sum()} discoveries are wrong")

# %%
# ``coupling.to_frame()`` is a table with a row for each pair (pandas), ``coupling.to_networkx()``
# a graph.

# %%
# 5. Filters
# ----------
# The strength is a summary, and the filter is the time course. The curves show the factor by which
# one event of the sender multiplies the rate of the receiver, at each lag. The bands are pointwise
# 95 % bands.

axes = plot_filters(coupling, bin_size=bin_size)
order = np.argsort(-np.abs(np.where(significant, coupling.strength, 0)), axis=None)[:6]
for ax, pair in zip(axes, order, strict=True):
    i, j = np.unravel_index(pair, significant.shape)
    ax.plot(lag, np.exp(network.filters[i, :, j]), "k--", lw=1)
axes[0].plot([], [], "k--", lw=1, label="true")
axes[0].legend()
plt.show()

# %%
# In one call
# -----------
# `fastglm.infer_connectivity` takes counts or spike times and makes the choices above by itself:
# window, basis, penalty, and covariates for the activity that all cells share. Its choices are in
# ``settings``.

one_call = fastglm.infer_connectivity(counts, bin_size=bin_size)
for name, choice in one_call.settings.items():
    print(f"{name}: {choice}")
found = one_call.significant(0.05)
print(f"{(found & connected).sum()} of {connected.sum()} connections found")
print(f"{(found & ~connected).sum()} of {found.sum()} discoveries are wrong")

# %%
# Where to go from here
# ---------------------
# - If cells follow a stimulus, a position or a movement, put it beside the coupling:
#   :ref:`head direction <sphx_glr_gallery_head_direction.py>`,
#   :ref:`slow covariates <sphx_glr_gallery_slow_covariates.py>`.
# - Few spikes need more penalty: :ref:`choosing a penalty
#   <sphx_glr_gallery_choosing_a_penalty.py>`.
# - How sure are these couplings? :ref:`Significance <sphx_glr_gallery_significance.py>`.
# - The recording has trials or gaps: :ref:`trials and gaps
#   <sphx_glr_gallery_trials_and_gaps.py>`.
# - Does the model describe the data at all? :ref:`Diagnostics <sphx_glr_gallery_diagnostics.py>`.
