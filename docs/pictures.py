"""Draw the pictures of the pages that show no data: ``python docs/pictures.py``."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastglm
from fastglm.plotting import plot_connectivity
from fastglm.plotting.common import BLUE, GREY, VERMILLION, plain

IMAGES = Path(__file__).parent / "images"
BIN = 0.002


def population(n=8):
    """Counts of cells of which 0 drives 5 and 2 inhibits 5, and their map."""
    rng, n_bins = np.random.default_rng(3), 150_000
    basis = fastglm.basis.RaisedCosineLogConv(5, window_size=25)
    weights = np.zeros((n, n, 5))  # receiver, sender, function
    for sender, receiver, size in [(0, 5, 0.8), (2, 5, -1.0), (5, 7, 0.7), (3, 1, 0.7), (6, 4, -1)]:
        weights[receiver, sender] = size * np.array([0.3, 1, 0.8, 0.3, 0.1])
    counts, _ = fastglm.simulation.simulate_recurrent(
        weights,
        intercepts=np.log(BIN * rng.uniform(10, 20, n)),
        coupling_basis_matrix=basis.kernel_,
        n_bins=n_bins,
        random_key=1,
        inverse_link_function="exp",
    )
    X = basis.compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-6).fit(X, counts)
    return counts, basis, X, model, model.coupling_map(X, counts, bin_size=BIN)


def way():
    """The way from spikes to a map, in five panels."""
    counts, basis, X, model, found = population()
    start, stop = 6000, 6250  # half a second
    t = (np.arange(start, stop) - start) * BIN * 1e3
    n, receiver, sender = counts.shape[1], 5, 0
    figure = plt.figure(figsize=(10.5, 6.4), layout="constrained")
    panels = figure.subplot_mosaic([["spikes", "spikes", "basis"], ["filters", "rate", "map"]])
    axes = list(panels.values())
    colours = [GREY] * n
    colours[sender], colours[2], colours[receiver] = VERMILLION, BLUE, "black"

    spikes = [t[np.flatnonzero(counts[start:stop, i])] for i in range(n)]
    axes[0].eventplot(spikes, colors=colours, lw=1.4, linelengths=0.7)
    axes[0].set(xlabel="time (ms)", ylabel="cell", yticks=range(n), title="1. spikes")
    axes[0].invert_yaxis()

    lag = np.arange(1, 26) * BIN * 1e3
    axes[1].plot(lag, basis.kernel_, lw=1.2)
    axes[1].set(xlabel="lag (ms)", ylabel="weight", title="2. a basis")

    filters = basis.kernel_ @ found.coef[:, :, receiver].T  # lags, senders
    for i, colour in ((sender, VERMILLION), (2, BLUE)):
        axes[2].plot(lag, np.exp(filters[:, i]), color=colour, label=f"{i} to {receiver}")
    axes[2].axhline(1, color=GREY, lw=0.8)
    axes[2].set(xlabel="lag (ms)", ylabel=f"rate of {receiver} is multiplied by", yscale="log")
    axes[2].set(title="3. filters, fitted", yticks=[0.5, 1, 2], yticklabels=["0.5", "1", "2"])
    axes[2].minorticks_off()
    axes[2].legend(frameon=False, fontsize=8)

    rate = model.predict(X[start:stop])[:, receiver] / BIN
    axes[3].plot(t, rate, color="black", lw=1.2)
    top = rate.max()
    for i, height in ((sender, 1.12), (2, 1.2), (receiver, 1.28)):
        axes[3].plot(spikes[i], np.full(spikes[i].size, height * top), "|", color=colours[i], ms=7)
    axes[3].set(xlabel="time (ms)", ylabel=f"predicted rate of {receiver} (Hz)")
    axes[3].set(title="4. the rate they predict", ylim=(0, 1.36 * top))

    plot_connectivity(found, ax=axes[4])
    axes[4].set_title("5. the map of all pairs")
    for ax in axes:
        ax.title.set_fontsize(10)
    for ax in axes[:4]:
        plain(ax)
    figure.savefig(IMAGES / "way.png", dpi=130)


if __name__ == "__main__":
    way()
