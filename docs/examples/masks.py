"""
Masks from anatomy
==================

Some connections cannot exist: cells may be too far apart, and projections may run one way only. A
mask leaves such connections out. The fit gets cheaper, because a masked feature costs nothing. It
also gets better, because noise has fewer places to go.
"""

# %%
# Cells along a probe
# -------------------
# Twenty cells along a probe of 1 mm. Only cells less than 0.25 mm apart may be connected.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity

rng = np.random.default_rng(0)
n_cells, bin_size = 20, 0.01
depth = np.sort(rng.uniform(0, 1, n_cells))  # mm
near = np.abs(depth[:, None] - depth) < 0.25

basis = fastglm.basis.RaisedCosineLogConv(4, window_size=10, label="coupling")
network = fastglm.simulation.random_network(
    n_cells, basis, bin_size=bin_size, connection_probability=0.3, random_key=2
)
network.coupling_coef *= near.T[:, :, None]  # receiver, sender, function
counts = network.simulate(30_000, random_key=3)
X = basis.compute_features(counts)

# %%
# A sender-by-receiver map becomes a mask of features with ``n_basis_funcs`` rows for each sender.

mask = np.repeat(near, basis.n_basis_funcs, axis=0)
print(mask.shape, f"{mask.mean():.0%} of the couplings are left")

settings = {"regularizer": "Ridge", "regularizer_strength": 1e-4}
full = fastglm.PopulationGLM(**settings).fit(X, counts)
masked = fastglm.PopulationGLM(**settings, feature_mask=mask).fit(X, counts)

# %%
# A masked coefficient is exactly 0 and not in the fit. Its standard error is NaN. It does not count
# as a test, so the remaining couplings are judged less severely.

true = network.filters.sum(axis=1)
between = ~np.eye(n_cells, dtype=bool)
connected = (true != 0) & between
limit = np.abs(true[between]).max()
fig, axes = plt.subplots(1, 2, figsize=(9, 4.4))
for ax, (name, model) in zip(axes, {"all pairs": full, "near pairs": masked}.items(), strict=True):
    coupling = model.coupling_map(X, counts)
    found = coupling.significant() & between
    plot_connectivity(coupling, limit=limit, bar=False, ax=ax)
    ax.set_title(name)
    error = np.sqrt(np.mean((coupling.strength - true)[near & between] ** 2))
    print(
        f"{name:>10}: error of near pairs {error:.2f}; found {(found & connected).sum()} of "
        f"{connected.sum()} connections, {(found & ~connected).sum()} false"
    )
plt.show()

# %%
# Is anything missing?
# --------------------
# The score test looks at every pair that the mask left out, without a further fit. Here no masked
# pair is connected. In a recording, a small q-value means that the mask is too narrow or that far
# cells share an input.

score = fastglm.inference.score_test(masked, X, counts)
left_out = np.isfinite(score.p_value)
print(f"{(score.q_value[left_out] < 0.05).sum()} of {left_out.sum()} masked pairs have q < 0.05")

# %%
# Whole blocks
# ------------
# If a model has several parts, a dictionary switches parts for each receiver. Here the speed is in
# the fit of the first ten cells only.

speed = rng.random(len(counts))
both = basis + fastglm.basis.BSplineEval(5, bounds=(0, 1), label="speed")
first_half = np.arange(n_cells) < 10
model = fastglm.PopulationGLM(**settings, feature_mask={"speed": first_half})
model.fit(both.compute_features(counts, speed), counts)
weights = both.split_by_feature(model.coef_, axis=0)["speed"]
print("functions of the speed in use, for each cell:", (weights != 0).sum(axis=0))

# %%
# Other useful maps are:
#
# - ``np.eye(n)``: own history only, a model without coupling to compare with.
# - ``shank[:, None] == shank``: within a shank only.
# - ``shank[:, None] != shank``, plus the diagonal: across shanks only. Spikes that overlap on one
#   electrode cannot fake a coupling there.
# - ``np.ones((n, n))`` with the rows of interneurons set to 0: excitatory senders only.
