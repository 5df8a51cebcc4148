"""
A recording of your own
=======================

This page goes from a file to a picture, a report and a saved model. Set ``FASTGLM_RECORDING`` to
the path of an NWB or ``.npz`` file to run it on your recording:

.. code-block:: bash

    FASTGLM_RECORDING=session.nwb python own_recording.py

Without it, the page makes a file first.
"""

# %%
# The file
# --------
# An ``.npz`` file has ``spike_times`` (seconds, ascending within each unit), ``unit`` (0, 1, ...),
# ``n_units``, ``t_start`` and ``t_stop``. If there are gaps it also has ``segments``, the observed
# intervals. :doc:`Your data </data>` has NWB files and other ways in.

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity, plot_filters
from fastglm.report import write_report

folder = Path(tempfile.mkdtemp())
path = os.environ.get("FASTGLM_RECORDING")
if path is None:
    path = folder / "recording.npz"
    maker = fastglm.basis.RaisedCosineLogConv(4, window_size=50)
    network = fastglm.simulation.random_network(10, maker, bin_size=0.002, random_key=4)
    bins, unit = np.nonzero(network.simulate(200_000, random_key=0))
    order = np.lexsort((bins, unit))
    np.savez(
        path,
        spike_times=(bins[order] + 0.5) * 0.002,
        unit=unit[order],
        n_units=10,
        t_start=0.0,
        t_stop=400.0,
        segments=[[0.0, 180.0], [200.0, 400.0]],
    )

# %%
# Load and look
# -------------

spikes = fastglm.load_spikes(path)
seconds = np.diff(spikes.segments, axis=1).sum()
rates = np.bincount(spikes.unit, minlength=spikes.n_units) / seconds
print(f"{spikes.n_units} units, {len(spikes.segments)} segments, {seconds:.0f} s")
print(f"rates from {rates.min():.2f} to {rates.max():.1f} Hz, median {np.median(rates):.2f} Hz")

# %%
# Fit
# ---
# Bins should be 5 ms or less, so that few bins hold two spikes of a cell. The window should be as
# long as one cell affects another, often 50 to 200 ms. No history crosses a gap.

model = fastglm.fit_coupling(spikes, bin_size=0.005, window=0.1)
for status, number in zip(*np.unique(model.status_, return_counts=True), strict=True):
    print(f"{number} receivers {status}")

# %%
# Look
# ----
# ``model.X_`` and ``model.counts_`` are the data of the fit. Standard errors are those of the kind
# "observed", which suit cells with few spikes and ridge fits. :ref:`Significance
# <sphx_glr_gallery_significance.py>` compares the kinds.

coupling = model.coupling_map(model.X_, model.counts_)
print(coupling)

plot_connectivity(coupling)
plt.show()

# %%

plot_filters(coupling, bin_size=model.bin_size_)
plt.show()

# %%
# Check and keep
# --------------
# Time rescaling asks whether spikes come where the model expects them. :ref:`Diagnostics
# <sphx_glr_gallery_diagnostics.py>` has more tests. The report is one page with everything, to send
# around.

rescaling = fastglm.diagnostics.time_rescaling(model, model.X_, model.counts_)
inside = (rescaling.statistic < rescaling.band()).sum()
print(f"{inside} of {spikes.n_units} units pass the test of time rescaling")

write_report(
    folder / "report.html", model, model.X_, model.counts_, bin_size=0.005, basis=model.basis_
)
model.save_params(folder / "model.npz")
again = fastglm.load_model(folder / "model.npz")
print("the same after loading:", np.array_equal(again.coef_, model.coef_))

# %%
# The command line does the same:
#
# .. code-block:: bash
#
#     fastglm fit recording.npz --bin-size 0.005 --window 0.1 --ridge 1e-4 \
#         --out model.npz --plot coupling.png --report report.html
