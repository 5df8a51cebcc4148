"""The solver: one task in, one result for each of its penalties out.

A `batch.Task` is a batch of receivers, the products of their features, what was observed, and their
penalties. `batch.fit_task` fits it:

1. It finds what lies at infinity from ``X'Y`` and fixes it (`batch`).
2. It chooses the problem. A loss of constant curvature is solved from ``X'X`` (`quadratic`). Few
   features get exact Hessians from rows (`exact`). Many features get gradients from all events
   (`events`).
3. It finds a start. The optimum on a sample of bins is one, where counts are linear
   (`preconditioner`, `sampling`, `shared`).
4. It searches: `newton` for smooth penalties, `proximal` for lasso and groups. A search moves every
   receiver on its own, and gives it a status and a certificate (`result`).

`events.EventProblem` has the parts that many features need. `objective` is one pass over the
events. `lbfgs` turns gradients into steps. `preconditioner` inverts the Hessian on the sample,
`shared` holds what all receivers have in common. `late` gives receivers that take long a sample of
their own. `observed` holds counts, weights and offsets; `linear` solves small dense systems.

`protocols` says what the parts owe each other. The data are asked for through
`fastglm._products.protocol` alone: nothing here knows where X lies. The family is asked for through
`fastglm.observation_models.Loss` alone: nothing here knows its name.

Where to add something:

- a family: `fastglm.observation_models` and one pointwise kernel; nothing here;
- a machine or a store of data: an implementation of `fastglm._products.protocol`;
- a step: a `protocols.Descent` that a problem owns;
- a penalty: a part of `fastglm._penalty.Penalty` that a search knows.
"""
