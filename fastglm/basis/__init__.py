"""Temporal bases and bases of covariates: filters and tuning curves are sums of their functions.

A convolution basis (Conv) has a kernel ``K`` of shape (window_size, n_basis_funcs): its functions
on the grid ``u = linspace(0, 1, window_size)``. Row ``l`` weighs lag ``l + 1`` bins. Its features
are

    X[t, i * B + b] = sum_l K[l, b] * counts[t - 1 - l, i]

They are strictly causal and sender-major; the basis function varies fastest. An evaluation basis
(Eval) gives its functions at the samples of a covariate. Samples are rescaled to [0, 1] by the
bounds of the basis, or by the range of the samples if it has no bounds:

    X[t, i * B + b] = f_b((x[t, i] - low) / (high - low))

Bases can be added and multiplied (`AdditiveBasis`, `MultiplicativeBasis`). Names, parameters and
defaults are the same as in NeMoS (Balzani et al., 2024); values agree to 1e-12.
"""

from fastglm.basis.category import Category
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
    "Category",
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
