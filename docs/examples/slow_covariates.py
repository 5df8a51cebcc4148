"""
Slow covariates beside fast coupling
====================================

Coupling needs bins of a few milliseconds. Position, speed or pupil are sampled at 30 Hz or so.
Copies of each sample for all its bins would fill the memory. `fastglm.features.hold` keeps the
covariate at its own rate.

The example has place cells on a square floor, with coupling between them.
"""

# %%
# Position at 30 Hz, spikes in bins of 5 ms
# -----------------------------------------

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity

rng = np.random.default_rng(1)
n_cells, bin_size, n_bins = 9, 0.005, 180_000
n_frames = int(n_bins * bin_size * 30)
step = rng.normal(size=(n_frames + 60, 2))
smooth = np.stack([np.convolve(s, np.hanning(60), mode="same")[30:-30] for s in step.T], axis=1)
walk = np.cumsum(0.0025 * smooth, axis=0)
position = np.abs((walk + 0.5) % 2 - 1)  # reflected at the walls of a floor of 1 m x 1 m

centres = np.array([(x, y) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)])
frame = np.minimum((np.arange(n_bins) * bin_size * 30).astype(int), n_frames - 1)
distance = ((position[:, None] - centres) ** 2).sum(axis=2)[frame]
field = 3.0 * np.exp(-distance / (2 * 0.15**2))  # of the log rate

basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20, label="coupling")
coupling = np.zeros((n_cells, n_cells, 4))  # receiver, sender, function
coupling[range(1, n_cells), range(n_cells - 1)] = [1.0, 0.1, 0.0, 0.0]  # each drives the next
coupling[range(n_cells), range(n_cells)] = [-2.0, -1.0, -0.2, 0.0]
counts, _ = fastglm.simulation.simulate_recurrent(
    coupling,
    feedforward_coef=np.ones((n_cells, 1)),
    intercepts=np.full(n_cells, np.log(2 * bin_size)),
    random_key=0,
    feedforward_input=field[:, :, None],
    coupling_basis_matrix=basis.kernel_,
    inverse_link_function="exp",
)
print(f"{counts.sum():,} spikes, {counts.mean() / bin_size:.1f} Hz on average")

# %%
# Hold
# ----
# ``every`` is the number of bins that a sample lasts. It need not be whole: 200 bins a second at 30
# frames a second are 6.67. For irregular frames, ``starts`` takes the first bin of each sample. For
# a repeated film, ``samples`` takes the number of the sample of each bin.

x, y = (fastglm.features.hold(position[:, k], n_bins, every=1 / (30 * bin_size)) for k in range(2))

# %%
# A map over two dimensions is a product of two splines. The product is evaluated once a sample, not
# once a bin.

spline = {"n_basis_funcs": 6, "bounds": (0, 1)}
place = fastglm.basis.BSplineEval(**spline, label="x") * fastglm.basis.BSplineEval(
    **spline, label="y"
)
place.label = "place"
both = basis + place
X = both.compute_features(counts, x, y)
print(X)
print(f"as an array it would take {X.size * 8 / 1e6:.0f} MB")

# %%
# Fit
# ---

settings = {"regularizer": "Ridge", "regularizer_strength": 1e-5}
model = fastglm.PopulationGLM(**settings).fit(X, counts)

grid = np.linspace(0.01, 0.99, 40)
gx, gy = np.meshgrid(grid, grid, indexing="ij")
weights = both.split_by_feature(model.coef_, axis=0)["place"].reshape(36, n_cells)
maps = place.evaluate(gx.ravel(), gy.ravel()) @ weights + model.intercept_
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True)
for ax, j in zip(axes, (0, 4, 5, 8), strict=True):
    hz = np.exp(maps[:, j]).reshape(40, 40).T / bin_size
    image = ax.imshow(hz, origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
    ax.plot(*centres[j], "w+", ms=12, mew=2)
    ax.set(title=f"cell {j}", xlabel="x (m)")
    fig.colorbar(image, ax=ax, shrink=0.6)
axes[0].set_ylabel("y (m)")
fig.suptitle("rate without coupling (Hz); cross: true centre of the field", fontsize=10)
plt.show()

# %%
# Coupling with and without the position
# --------------------------------------
# Cells with fields side by side fire together, and cells with distant fields never do. Both look
# like coupling. With the position in the model, the chain of true connections remains.

X_alone = basis.compute_features(counts)
alone = fastglm.PopulationGLM(**settings).fit(X_alone, counts)

true = np.einsum("lb,jib->ij", basis.kernel_, coupling)
between = ~np.eye(n_cells, dtype=bool)
fig, axes = plt.subplots(1, 3, figsize=(10, 3.9))
axes[0].imshow(np.where(between, true, np.nan), cmap="RdBu_r", vmin=-1.5, vmax=1.5)
axes[0].set(title="true", xlabel="receiver", ylabel="sender")
fits = {"coupling only": (alone, X_alone), "with position": (model, X)}
for ax, (name, (fit, features)) in zip(axes[1:], fits.items(), strict=True):
    fitted = fit.coupling_map(features, counts, label="coupling")
    found = fitted.significant(0.05)
    print(
        f"{name}: {found[true != 0].sum()} of {(true != 0)[between].sum()} connections found, "
        f"{found[true == 0].sum()} false"
    )
    plot_connectivity(fitted, limit=1.5, bar=False, ax=ax)
    ax.set(title=name, ylabel="")
plt.show()

# %%
# A coupling whose strength follows a covariate is a product too: ``basis * IdentityEval()`` with
# the speed as its input. :doc:`Conventions </conventions>` has an example.
