"""The solver: one task in, one result for each of its penalties out.

A `batch.Task` holds a batch of receivers: the products of their features, their observations and
their penalties. `batch.fit_task` fits it:

1. It finds coefficients whose optimum lies at infinity from ``X'Y``, and fixes them (`batch`).
2. It chooses the problem. A loss of constant curvature is solved from ``X'X`` (`quadratic`). Few
   features get exact Hessians from rows (`exact`). Many features get gradients from all events
   (`events`).
3. It finds a start. Where the counts enter the loss linearly, the start is the optimum on a sample
   of bins (`preconditioner`, `shared`; `_algebra.sampling`).
4. It searches: `newton` for smooth penalties, `proximal` for lasso and groups, whose models are
   solved in float64 where float32 fails (`_algebra.sparse_model`). A search moves every receiver
   on its own, and gives it a status and a certificate (`result`).
5. It adds what is left in bins on their way to infinity to the certificate (`limits`).

A family whose scale is fitted with the coefficients has `scales.fit_scales` in the place of
`fit_task`: a loop around such fits, at one scale after another.

`events.EventProblem` has the parts that many features need. `objective` is one pass over the
events. `lbfgs` turns gradients into steps. `preconditioner` inverts the Hessian on the sample.
`shared` holds the covariance, its spectrum and the sample, which all receivers use. `late` gives
receivers that need many steps a sample of their own. `observed` holds counts, weights and offsets.
`linear` solves small dense systems. Where memory does not hold ``X'X``, `blocks` has the place of
`preconditioner` and `shared`, and a bound of the gap.

`protocols` states the methods and attributes that each part needs of the others. The engine reads X
through `fastglm._products.protocol` alone, so it does not know where X lies. It reads the family
through `fastglm.observation_models.Loss` alone, so it does not know the family's name.

Words:

- *free*: the coefficients of a receiver that its mask leaves in the fit;
- *level*: the mean curvature of a receiver at its mean rate, or the mean diagonal of its penalty;
- *plain*: a receiver that has a free coefficient without any penalty;
- *shift*: the vector that offsets, and weights of an exponential loss, add to eta;
- *tile*, *lanes*: receivers are worked on side by side in tiles of ``lanes`` columns.

Where to add something:

- a family: `fastglm.observation_models` and one pointwise kernel; nothing here;
- a machine or a store of data: an implementation of `fastglm._products.protocol`;
- a step: a `protocols.Descent` that a problem owns;
- a penalty: a part of `fastglm._penalty.Penalty` that a search knows.
"""
