"""``fastglm demo``."""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from fastglm._checks import check_memory
from fastglm.cli.files import plotting_of
from fastglm.cli.rows import fit_rows, recovery_rows
from fastglm.cli.terminal import print_table


@click.command()
@click.option(
    "--out",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the picture; made where it is missing.",
)
@click.option("--cells", default=20, show_default=True, type=click.IntRange(2, 200))
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(10.0, 1e5))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0))
def demo(out: Path, cells: int, seconds: float, seed: int) -> None:
    """Simulate a network with known connectivity, fit it, compare, draw."""
    import fastglm
    from fastglm._fitted import Fitted
    from fastglm.connectivity import point_estimates
    from fastglm.simulation import random_network

    plotting = plotting_of()
    if not np.isfinite(seconds):
        raise ValueError(f"--seconds is {seconds}; expected a number from 10 to 100000.")
    check_memory("The network", 3e-3 * cells * seconds * 1e6, "simulate fewer seconds")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "fastglm-demo.png"
    plotting.check_path(path)
    bin_size = 0.001
    basis = fastglm.basis.RaisedCosineLogConv(6, window_size=60)
    network = random_network(cells, basis, bin_size=bin_size, strength=0.6, random_key=seed)
    counts = network.simulate(int(seconds / bin_size), seed)
    X = basis.compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-6)
    begin = time.perf_counter()
    model.fit(X, counts)
    seconds_taken = time.perf_counter() - begin
    true, fitted = (point_estimates(one.coef, basis.kernel_) for one in (network, Fitted.of(model)))
    rows = [
        ("cells, bins", f"{cells}, {counts.shape[0]} of {bin_size * 1e3:g} ms"),
        ("mean rate", f"{counts.mean() / bin_size:.2f} Hz"),
        *fit_rows(model, X, counts, seconds_taken),
        *recovery_rows(network.adjacency, fitted),
    ]
    between = ~true.own_history
    if true.strength[between].any():
        correlation = np.corrcoef(true.strength[between], fitted.strength[between])[0, 1]
        rows.append(("true and fitted areas", f"correlation {correlation:.3f}"))
    print_table(rows)
    plotting.demo_figure(true, fitted, bin_size, path)
    click.echo(f"picture: {path}")
