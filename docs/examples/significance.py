"""
Which couplings are significant
===============================

A fitted coupling is never exactly zero. This page finds the couplings that the data support. It
uses standard errors, q-values for the whole map, and a test of all couplings without a fit of any.
"""

# %%
# Twelve cells are recorded for ten minutes. A fifth of the pairs is connected.

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity, plot_filters

n_cells, bin_size = 12, 0.01
basis = fastglm.basis.RaisedCosineLogConv(4, window_size=10)
network = fastglm.simulation.random_network(
    n_cells, basis, bin_size=bin_size, connection_probability=0.2, strength=0.25, random_key=1
)
counts = network.simulate(60_000, random_key=0)
connected = network.adjacency != 0
between = ~np.eye(n_cells, dtype=bool)

X = basis.compute_features(counts)
model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)

# %%
# The map and its errors
# ----------------------
# ``strength`` is the area of a filter and ``standard_error`` its uncertainty. The p-value belongs
# to the whole filter, so it also sees a filter whose parts cancel. The q-value corrects for the
# number of pairs: at most one in twenty couplings with q below 0.05 is expected to be false.

coupling = model.coupling_map(X, counts)
plot_connectivity(coupling)
plt.show()

# %%

found = coupling.significant(0.05)
absent = between & ~connected
print(
    f"{(found & connected).sum()} of {connected.sum()} connections, {(found & absent).sum()} false"
)
i, j = np.argwhere(found & connected)[0]
print(
    f"{i} to {j}: {coupling.strength[i, j]:.2f} +- {coupling.standard_error[i, j]:.2f}, "
    f"rate {coupling.gain[i, j]:+.0f} % at its peak, q = {coupling.q_value[i, j]:.1g}"
)
plot_filters(coupling, bin_size=bin_size)
plt.show()

# %%
# Are the p-values right?
# -----------------------
# P-values of unconnected pairs should be uniform. 5 % of them should be below 0.05, where 1 to 10 %
# is within chance for 111 pairs, and the curve below should be a straight line. A test is on the
# safe side if its curve is far below the line, and finds couplings that do not exist if it is far
# above. Three kinds of standard error make different assumptions:
#
# ============  ============================================================
# ``kind``      right if
# ============  ============================================================
# "observed"    counts have the family of the model, here Poisson
# "robust"      the rate is right; counts may be more or less variable
# "blocks"      residuals may also depend on each other within ten windows
# ============  ============================================================
#
# The last two estimate the variability from the residuals, and that takes spikes of both cells. For
# pairs that have few together they add the model's variance, so that p-values hold. The attribute
# ``effective_events`` of :func:`fastglm.inference.uncertainty` says on how many events they rest.

fig, ax = plt.subplots(figsize=(4.4, 3.8))
ax.plot([0, 1], [0, 1], color="0.5", lw=1)
for kind in ("observed", "robust", "blocks"):
    p = np.sort(model.coupling_map(X, counts, kind).p_value[absent])
    ax.plot(p, np.arange(1, p.size + 1) / p.size, drawstyle="steps-post", label=kind)
    error = np.median(model.standard_errors(X, counts, kind))
    print(f"{kind:>9}: {np.mean(p < 0.05):.1%} below 0.05, median standard error {error:.3f}")
ax.set(
    xlabel="p-value", ylabel="share of pairs below", title=f"{p.size} pairs without a connection"
)
ax.legend()
plt.show()

# %%
# "observed" is on the safe side. With a ridge it is the width of the posterior, which includes the
# effect of the ridge on the coefficient. The other two are the scatter of the shrunken estimate
# alone. If the ridge is negligible, the model is right and spikes are many, the three agree. Take
# "observed" for a map, above all of sparse cells. Take the others for couplings between cells with
# thousands of spikes, if counts are plainly not Poisson.
#
# No standard error repairs a wrong rate. A common input outside the model looks like coupling. Put
# known inputs into the model (:ref:`head direction <sphx_glr_gallery_head_direction.py>`).

# %%
# All couplings at once, without fitting them
# -------------------------------------------
# The score test asks whether a filter *outside* the model would improve it. If every cell is fitted
# with its own history only, all pairs are tested for the price of one pass over the data. For
# hundreds of cells with few spikes the test is a cheap first look. It tests each pair by itself, so
# a chain a → b → c may show up as a → c. The coupled fit explains such a pair away.

own = np.repeat(np.eye(n_cells), basis.n_basis_funcs, axis=0)
alone = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4, feature_mask=own).fit(
    X, counts
)
score = fastglm.inference.score_test(alone, X, counts)
detected = score.q_value < 0.05
print(f"{(detected & connected).sum()} of {connected.sum()} connections")
print(f"{(detected & absent).sum()} pairs that are not connected")

fig, ax = plt.subplots(figsize=(4.4, 3.6))
for pairs, label in ((absent, "not connected"), (connected, "connected")):
    ax.loglog(coupling.p_value[pairs], score.p_value[pairs], "o", ms=4, label=label, alpha=0.7)
ax.set(xlabel="p-value in the coupled fit", ylabel="p-value of the score test")
ax.set(xlim=(1e-30, 2), ylim=(1e-30, 2))
ax.legend()
plt.show()

# %%
# For a single question, such as "does cell 3 drive cell 5?", two fits with and without the filter
# give the most reliable answer:

pair = tuple(int(k) for k in np.argwhere(connected)[0])
test = fastglm.inference.likelihood_ratio_test(model, X, counts, pairs=[pair])
print(
    f"{pair[0]} to {pair[1]}: chi-squared {test.statistic[pair]:.1f}, p = {test.p_value[pair]:.1g}"
)
