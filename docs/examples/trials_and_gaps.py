"""
Trials and gaps
===============

Recordings come in pieces: trials, sessions, or stretches between cuts. The time before a piece is
unknown. The first window of a piece therefore has no complete history and is left out of the fit.
You only have to say where the pieces begin.
"""

# %%
# Trials
# ------
# Eight cells are recorded in a hundred trials of different lengths, in bins of 5 ms. The basis and
# the fit take the trials as a list.

import matplotlib.pyplot as plt
import numpy as np

import fastglm

rng = np.random.default_rng(0)
basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20, label="coupling")
network = fastglm.simulation.random_network(8, basis, bin_size=0.005, random_key=5)
lengths = rng.integers(400, 1200, 100)
trials = [network.simulate(n, random_key=k) for k, n in enumerate(lengths)]

X = basis.compute_features(trials)
model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
model.fit(X, trials)
X

# %%
# ``valid_rows`` is the number of bins with a complete history: all but the first 20 of each trial.

left_out = (~X.valid).sum()
print(f"{len(X.valid)} bins in 100 trials, {left_out} left out")

# %%
# Gaps
# ----
# A long recording with gaps is one array and its epochs: first bin, and one past the last.
# ``fastglm.bin_spikes(..., epochs=intervals_in_seconds)`` gives both from spike times.

intervals = np.array([[0.0, 30.0], [34.0, 71.5], [80.0, 120.0]])  # seconds
spike_times = np.sort(rng.uniform(0, 120, 4000))
unit = rng.integers(0, 8, 4000)
binned, epochs = fastglm.bin_spikes(spike_times, unit, 0.005, t_stop=120.0, epochs=intervals)
print(epochs)

features = basis.compute_features(binned, epochs=epochs)
fig, ax = plt.subplots(figsize=(7, 1.8))
start = epochs[1, 0]
shown = np.arange(start - 60, start + 80)
ax.fill_between(shown, 0, features.valid[shown], step="post", alpha=0.5, label="in the fit")
ax.plot(shown, binned[shown].sum(axis=1) / 4, drawstyle="steps-post", color="k", lw=0.8)
ax.axvline(start, color="tab:red", ls="--", label="an epoch begins")
ax.set(xlabel="bin", yticks=[], title="spikes (black) and the bins that are fitted")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %%
# Cells that come and go
# ----------------------
# If a cell was lost for a while, its counts are unknown there, not 0: write NaN. As a receiver the
# cell is fitted to the other bins. As a sender it makes all bins that see it invalid, for every
# receiver. If these are too many bins, fill its counts as a sender with its mean.

counts = np.concatenate(trials).astype(float)
edges = np.concatenate([[0], np.cumsum(lengths)])
epochs = np.column_stack([edges[:-1], edges[1:]])
unknown = counts.copy()
unknown[50_000:, 3] = np.nan  # cell 3 was lost

strict = basis.compute_features(unknown, epochs=epochs)
filled = np.where(np.isnan(unknown), np.nanmean(unknown, axis=0), unknown)
lenient = basis.compute_features(filled, epochs=epochs)
print(f"valid bins: {strict.valid.sum()} with NaN as a sender, {lenient.valid.sum()} filled")
model.fit(lenient, unknown)
print("all receivers converged:", model.converged_.all())

# %%
# Trials and cross-validation
# ---------------------------
# Bins of one trial are more alike than bins of two, so folds should leave out whole trials. An
# array gives the fold of every bin. A score above zero means that the model predicts spikes better
# than each cell's mean rate. A score below zero means that the model has more coefficients than the
# data support, or too weak a penalty.

fold = np.repeat(np.arange(100) % 5, lengths)
X = basis.compute_features(counts, epochs=epochs)
held_out = fastglm.diagnostics.cross_validated(model, X, counts, folds=fold)
fig, ax = plt.subplots(figsize=(5, 2.8))
ax.plot(held_out.bits_per_spike.T, ".", color="tab:blue")
ax.plot(held_out.bits_per_spike.mean(axis=0), "k_", ms=18)
ax.axhline(0, color="0.5", lw=0.8)
ax.set(xlabel="cell", ylabel="bits per spike", title="held-out trials (points: folds)")
plt.show()

# %%
# Effects that all trials share
# -----------------------------
# A stimulus at the same time in every trial drives cells together and looks like coupling. The time
# within the trial beside the coupling is a slow modulation of each cell's rate, which takes up the
# stimulus. These cells have no stimulus, so the modulation comes out flat.

time = np.concatenate([np.arange(n) * 0.005 for n in lengths])
both = basis + fastglm.basis.BSplineEval(8, bounds=(0, 6), label="time")
X = both.compute_features(counts, time, epochs=epochs)
model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, counts)

grid = np.linspace(0, 6, 200)
modulation = both["time"].evaluate(grid) @ both.split_by_feature(model.coef_, axis=0)["time"]
fig, ax = plt.subplots(figsize=(5, 2.8))
ax.plot(grid, np.exp(modulation - modulation.mean(axis=0)), lw=1)
ax.set(
    xlabel="time in the trial (s)", ylabel="rate multiplier", ylim=(0, 2), title="a curve a cell"
)
plt.show()
