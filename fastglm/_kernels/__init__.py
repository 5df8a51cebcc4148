"""Every compiled function: it takes arrays and scalars, and writes results into arguments.

| file | contents |
|---|---|
| `tiles` | the compiler's policy and the layout; history of senders, columns over runs of bins |
| `elementary` | exp, log and what follows from them |
| `pointwise`, `pointwise_scaled` | loss and residual of every bin, with a kernel for each family |
| `weigh` | weights and sums of these kernels |
| `sums` | correlograms of events, weighted Gram matrices of rows |
| `pairs` | weighted Gram matrices of histories, from pairs of events |
| `groups` | sparse penalties: the minimum of one receiver's model over groups of features |
| `mixture` | the likelihood of filters of which some hold a synapse |
| `simulate` | spikes of a recurrent network |
| `dots`, `threads` | not compiled: products whose bits do not depend on other columns, threads |
| `compiler` | Numba's decorator, with a cache that may fail |
| `ahead` | kernels that another process compiles ahead |
"""

from fastglm._kernels.elementary import exp, exp32, exp_array, exp_of, log, log32, log_of
from fastglm._kernels.groups import (
    group_leftover,
    learn_curvature,
    reduce_model,
    screen_groups,
    solve_groups,
    solve_triangles,
)
from fastglm._kernels.mixture import add_filters, filter_likelihoods
from fastglm._kernels.pairs import (
    PAIR_LANES,
    add_crossed,
    add_pairs,
    add_rows,
    add_sender_crossed,
    add_sender_pairs,
    multiply_rows,
)
from fastglm._kernels.pointwise import (
    bernoulli_cloglog,
    bernoulli_logistic,
    gaussian_identity,
    poisson_exp,
    poisson_softplus,
    scatter_counts,
)
from fastglm._kernels.pointwise_scaled import (
    gamma_exp,
    gamma_one_over_x,
    gamma_softplus,
    negative_binomial_exp,
    negative_binomial_softplus,
)
from fastglm._kernels.simulate import (
    send_counts,
    simulate_bernoulli_cloglog,
    simulate_bernoulli_logistic,
    simulate_gamma_exp,
    simulate_gamma_softplus,
    simulate_gaussian_identity,
    simulate_negative_binomial_exp,
    simulate_negative_binomial_softplus,
    simulate_poisson_exp,
    simulate_poisson_softplus,
)
from fastglm._kernels.sums import GRAM_BLOCK, add_weighted_gram, count_pairs, pack_rows
from fastglm._kernels.tiles import (
    BLOCK,
    FASTMATH,
    LANES,
    NARROW_BLOCK,
    NARROW_SEGMENT,
    PAD,
    SEGMENT,
    aligned_zeros,
    collect_filters,
    history_backward,
    history_backward_narrow,
    history_forward,
    history_forward_narrow,
    history_rows,
    project_filters,
    runs_backward,
    runs_backward_narrow,
    runs_forward,
    runs_forward_narrow,
)

__all__ = [
    "BLOCK",
    "FASTMATH",
    "GRAM_BLOCK",
    "LANES",
    "NARROW_BLOCK",
    "NARROW_SEGMENT",
    "PAD",
    "PAIR_LANES",
    "SEGMENT",
    "add_crossed",
    "add_filters",
    "add_pairs",
    "add_rows",
    "add_sender_crossed",
    "add_sender_pairs",
    "add_weighted_gram",
    "aligned_zeros",
    "bernoulli_cloglog",
    "bernoulli_logistic",
    "collect_filters",
    "count_pairs",
    "exp",
    "exp32",
    "exp_array",
    "exp_of",
    "filter_likelihoods",
    "gamma_exp",
    "gamma_one_over_x",
    "gamma_softplus",
    "gaussian_identity",
    "group_leftover",
    "history_backward",
    "history_backward_narrow",
    "history_forward",
    "history_forward_narrow",
    "history_rows",
    "learn_curvature",
    "log",
    "log32",
    "log_of",
    "multiply_rows",
    "negative_binomial_exp",
    "negative_binomial_softplus",
    "pack_rows",
    "poisson_exp",
    "poisson_softplus",
    "project_filters",
    "reduce_model",
    "runs_backward",
    "runs_backward_narrow",
    "runs_forward",
    "runs_forward_narrow",
    "scatter_counts",
    "screen_groups",
    "send_counts",
    "simulate_bernoulli_cloglog",
    "simulate_bernoulli_logistic",
    "simulate_gamma_exp",
    "simulate_gamma_softplus",
    "simulate_gaussian_identity",
    "simulate_negative_binomial_exp",
    "simulate_negative_binomial_softplus",
    "simulate_poisson_exp",
    "simulate_poisson_softplus",
    "solve_groups",
    "solve_triangles",
]
