"""Dense linear algebra of a step, without data: factors, coordinates, and models with norms.

`linear` has scaled Cholesky factors and spectra, `space` the coordinates of features that nearly
depend on each other, `inverse` large factors in place, and `sparse_model` the least of a quadratic
model with norms. `sampling` says how many bins a sample has, and draws them.
"""
