"""
Head direction: tuning next to coupling
=======================================

Cells that prefer similar head directions fire together, whether they are connected or not. A model
of coupling alone takes common firing for connections. A model with the head direction beside the
coupling shows the effect of the cells on each other beyond the direction.

This page simulates such a ring, so that the truth is known. Each cell is tuned to the head
direction, excites its clockwise neighbour, and inhibits the cell opposite.
"""

# %%
# A ring of cells
# ---------------
# The head turns as a slow random walk. Twenty cells are recorded for fifteen minutes, in bins of
# 10 ms.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity, plot_contributions

rng = np.random.default_rng(0)
n_cells, n_bins, bin_size = 20, 90_000, 0.01
velocity = np.convolve(rng.normal(size=n_bins + 200), np.hanning(200), mode="same")[100:-100]
angle = np.cumsum(0.0025 * velocity) % (2 * np.pi)

basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20, label="coupling")
preferred = np.arange(n_cells) * 2 * np.pi / n_cells
coupling = np.zeros((n_cells, n_cells, 4))  # receiver, sender, function
for i in range(n_cells):
    coupling[(i + 1) % n_cells, i] = [0.5, 0.1, 0.0, 0.0]
    coupling[(i + n_cells // 2) % n_cells, i] = [-0.3, -0.3, -0.1, 0.0]
    coupling[i, i] = [-2.0, -1.0, -0.2, 0.0]
tuning = 1.5 * np.cos(angle[:, None] - preferred)  # of the log rate
counts, rates = fastglm.simulation.simulate_recurrent(
    coupling,
    feedforward_coef=np.ones((n_cells, 1)),
    intercepts=np.full(n_cells, np.log(4 * bin_size)),
    random_key=1,
    feedforward_input=tuning[:, :, None],
    coupling_basis_matrix=basis.kernel_,
    inverse_link_function="exp",
)
print(f"{counts.mean() / bin_size:.1f} Hz on average")

fig, ax = plt.subplots(figsize=(7, 3))
shown = np.arange(3000)
order = [np.flatnonzero(counts[shown, i]) * bin_size for i in range(n_cells)]
ax.eventplot(order, lineoffsets=np.degrees(preferred), linelengths=18, color="k", lw=0.6)
ax.plot(shown * bin_size, np.degrees(angle[shown]), ".", ms=1.5, color="tab:red")
ax.set(xlabel="time (s)", ylabel="direction (degrees)", title="spikes, and the head (red)")
plt.show()

# %%
# Two models
# ----------
# The sum of two bases has the features of both: here a coupling filter for each sender and a
# periodic spline of the angle.

direction = fastglm.basis.CyclicBSplineEval(8, bounds=(0, 2 * np.pi), label="direction")
both = basis + direction
settings = {"regularizer": "Ridge", "regularizer_strength": 1e-5}

X_alone = basis.compute_features(counts)
alone = fastglm.PopulationGLM(**settings).fit(X_alone, counts)
X = both.compute_features(counts, angle)
model = fastglm.PopulationGLM(**settings).fit(X, counts)
X

# %%
# Coupling
# --------
# Without the direction the whole neighbourhood seems to be connected, and significantly so. A
# p-value knows nothing of a common input outside the model. With the direction the two true
# connections of each cell stand out, from sender to receiver and not the other way round.

true = np.einsum("lb,jib->ij", basis.kernel_, coupling)
between = ~np.eye(n_cells, dtype=bool)
limit = np.abs(true[between]).max()
fig, axes = plt.subplots(1, 3, figsize=(10, 3.9))
axes[0].imshow(np.where(between, true, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[0].set(title="true", xlabel="receiver", ylabel="sender", yticks=range(0, n_cells, 4))
fits = {"coupling only": (alone, X_alone), "coupling and direction": (model, X)}
for ax, (name, (fit, features)) in zip(axes[1:], fits.items(), strict=True):
    fitted = fit.coupling_map(features, counts, label="coupling")
    found = fitted.significant(0.05)
    print(
        f"{name}: {found[true != 0].sum()} of {(true != 0)[between].sum()} connections found, "
        f"{found[true == 0].sum()} false"
    )
    plot_connectivity(fitted, limit=limit, bar=False, ax=ax)
    ax.set(title=name, ylabel="")
plt.show()

# %%
# Tuning
# ------
# The spline of the angle is the tuning beyond coupling. The usual tuning curve, the mean rate at
# each direction, contains the effect of the other cells as well.

grid = np.linspace(0, 2 * np.pi, 100)
weights = both.split_by_feature(model.coef_, axis=0)["direction"]  # function, receiver
fitted = direction.evaluate(grid) @ weights
edges = np.linspace(0, 2 * np.pi, 25)
which = np.digitize(angle, edges) - 1
fig, axes = plt.subplots(1, 3, figsize=(9.5, 3), sharey=True)
for ax, j in zip(axes, (2, 9, 16), strict=True):
    gain = fitted[:, j] - fitted[:, j].mean()
    ax.plot(np.degrees(grid), np.exp(gain), label="model")
    ax.plot(np.degrees(grid), np.exp(1.5 * np.cos(grid - preferred[j])), "k--", label="true")
    mean = np.array([counts[which == k, j].mean() for k in range(24)])
    centre = np.degrees(0.5 * (edges[1:] + edges[:-1]))
    ax.plot(centre, mean / np.exp(np.log(mean).mean()), ".", color="tab:orange", label="mean rate")
    ax.set(title=f"cell {j}", xlabel="direction (degrees)", xticks=[0, 90, 180, 270, 360])
axes[0].set_ylabel("gain")
axes[0].legend()
plt.show()

# %%
# Does coupling help?
# -------------------
# The model is fitted again without each block, and scored in held-out bins. What a block adds to
# the bits per spike is the difference, fold by fold. The own history of a cell and the direction
# are worth a lot, and coupling is worth something on top of them.

added = fastglm.diagnostics.contributions(fastglm.PopulationGLM(**settings), X, counts, folds=4)
print(f"whole model: {added.full.bits_per_spike.mean():.3f} bits per spike")
plot_contributions(added)
plt.show()
added

# %%
# On your own recording
# ---------------------
# ``angle`` may be any covariate with a value for each bin. `fastglm.features.hold` keeps a
# covariate at its own rate, such as the 30 Hz of a camera.
