"""Temporal bases and bases of covariates: the functions that filters and tuning curves are made of.

A convolution basis (Conv) has a kernel ``K`` of shape (window_size, n_basis_funcs), its functions
on the grid ``u = linspace(0, 1, window_size)``; row ``l`` weighs lag ``l + 1`` bins. Its features
are

    X[t, i * B + b] = sum_l K[l, b] * counts[t - 1 - l, i]

strictly causal, sender-major, basis function fast. An evaluation basis (Eval) gives its functions
at the samples of a covariate, rescaled to [0, 1] by its bounds or else by the range of the samples:

    X[t, i * B + b] = f_b((x[t, i] - low) / (high - low))

Bases are added and multiplied (`AdditiveBasis`, `MultiplicativeBasis`). Names, parameters and
defaults are those of NeMoS (Balzani et al., 2024), whose values these equal to 1e-12.
"""

from fastglm.basis.composition import AdditiveBasis, MultiplicativeBasis
from fastglm.basis.cosines import (
    RaisedCosineLinearConv,
    RaisedCosineLinearEval,
    RaisedCosineLogConv,
    RaisedCosineLogEval,
)
from fastglm.basis.custom import CustomBasis
from fastglm.basis.exponentials import OrthExponentialConv, OrthExponentialEval
from fastglm.basis.fourier import FourierEval
from fastglm.basis.identity import HistoryConv, IdentityEval, Zero
from fastglm.basis.splines import (
    BSplineConv,
    BSplineEval,
    CyclicBSplineConv,
    CyclicBSplineEval,
    MSplineConv,
    MSplineEval,
)
from fastglm.basis.transformer import TransformerBasis

__all__ = [
    "AdditiveBasis",
    "BSplineConv",
    "BSplineEval",
    "CustomBasis",
    "CyclicBSplineConv",
    "CyclicBSplineEval",
    "FourierEval",
    "HistoryConv",
    "IdentityEval",
    "MSplineConv",
    "MSplineEval",
    "MultiplicativeBasis",
    "OrthExponentialConv",
    "OrthExponentialEval",
    "RaisedCosineLinearConv",
    "RaisedCosineLinearEval",
    "RaisedCosineLogConv",
    "RaisedCosineLogEval",
    "TransformerBasis",
    "Zero",
]
