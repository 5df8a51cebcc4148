"""
Scaling up
==========

A fit of hundreds of cells for hours at 1 ms takes minutes. It says so before it starts, shows its
progress, and survives an interruption. This page shows it with sixty cells. Hundreds work the same
way.
"""

# %%
# The plan
# --------
# ``plan`` fits nothing. It tells the method, the batches of receivers, the memory beside the
# spikes, and about how long the fit will take on this machine.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastglm

basis = fastglm.basis.RaisedCosineLogConv(4, window_size=50)
network = fastglm.simulation.random_network(60, basis, mean_rate_hz=5, bin_size=0.002)
counts = network.simulate(30_000, random_key=0, sparse=True)  # a SciPy sparse array
X = basis.compute_features(counts)
model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
print(model.plan(X, counts))

# %%
# The features are never stored, so memory grows with the spikes:

print(f"{X.nbytes / 1e6:.1f} MB kept, {X.size * 8 / 1e6:.0f} MB as an array")

n_cells = np.array([5, 10, 20, 40, 60])
parts = [basis.compute_features(counts[:, :n]) for n in n_cells]
fig, ax = plt.subplots(figsize=(5, 2.8))
ax.semilogy(n_cells, [part.size * 8 / 1e6 for part in parts], "o-", label="as an array")
ax.semilogy(n_cells, [part.nbytes / 1e6 for part in parts], "o-", label="kept")
ax.set(xlabel="cells", ylabel="MB", title="features of one minute at 2 ms")
ax.legend()
plt.show()

# %%
# Less memory
# -----------
# ``memory_budget`` sets how many receivers are fitted at a time. By default a fit may use half of
# the free memory. Receivers do not depend on each other, so batches change the time and not the
# answer.

small = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3, memory_budget="80MB")
print(small.plan(X, counts))

# %%
# Progress and checkpoints
# ------------------------
# ``progress=True`` draws a bar. A function as ``progress`` gets the number of receivers that are
# done. With a ``checkpoint`` finished receivers are written to a file. Here the fit is interrupted
# on purpose, as by Ctrl-C or a crash, and goes on from the file.

path = Path(tempfile.mkdtemp()) / "fit.npz"
done = []


def interrupt_after_some(n):
    """Stand in for Ctrl-C."""
    done.append(n)
    if 16 <= sum(done) < 60:
        raise KeyboardInterrupt


try:
    small.fit(X, counts, progress=interrupt_after_some, checkpoint=path)
except KeyboardInterrupt as error:
    print(error)

# %%
# The same call again takes the finished receivers from the file:

done.clear()
small.fit(X, counts, checkpoint=path)
print(f"{small.converged_.sum()} of 60 receivers converged")

# %%
# A coarser tolerance
# -------------------
# The default ``tol`` of 1e-16 is the last digit of the objective. A ``tol`` of 1e-8 takes about
# half of the passes and puts coefficients within a fraction of their standard errors.

quick = fastglm.PopulationGLM(
    regularizer="Ridge", regularizer_strength=1e-3, solver_kwargs={"tol": 1e-8}
).fit(X, counts)
gap = np.abs(quick.coef_ - small.coef_).max()
print(f"passes: {small.n_passes_.mean():.1f} and {quick.n_passes_.mean():.1f}")
print(f"largest difference of a coefficient: {gap:.0e}")

# %%
# If it takes too long
# --------------------
# - Use a mask. A masked feature costs nothing (:ref:`masks <sphx_glr_gallery_masks.py>`).
# - Use fewer basis functions. Time grows with their number, and memory with its square.
# - Use a score test before the fit. One pass tells which couplings are worth fitting
#   (:ref:`significance <sphx_glr_gallery_significance.py>`).
# - Use a ridge of 1e-4 or more. Without one, sparse recordings have no finite optimum and take
#   several times as long.
#
# :doc:`How it works </engine>` has measured times and memory.
