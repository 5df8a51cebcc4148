"""Labels of a categorical variable, one column for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import positive_int, shown
from fastglm._pynapple import keeps_times, read_values
from fastglm.basis.leaf import Eval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastglm.features.matrix import FeatureMatrix


class Category(Eval):
    """One column for each category: 1 where a sample has its label, else 0.

    The columns sum to 1, as the intercept: without a ridge, read coefficients as differences, or
    leave a column out (``X[:, 1:]``), which becomes the reference. A product with another basis
    gives every category its own tuning curve.

    Parameters
    ----------
    categories : int or list of labels
        A number n stands for the labels 0 to n - 1. Column k is the k-th label in sorted order.
    out_of_category : bool, default True
        A sample with another label is 0 in all columns. If False, it is an error.
    label : str

    Raises
    ------
    ValueError
        If there is no category, or a label twice.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> side = fastglm.basis.Category(["L", "R"], label="side")
    >>> np.asarray(side.compute_features(np.array(["L", "R", "R"])))
    array([[1., 0.],
           [0., 1.],
           [0., 1.]])
    >>> basis = side * fastglm.basis.BSplineEval(5, label="speed")
    >>> basis.compute_features(np.array(["L", "R", "R"]), np.array([0.0, 0.5, 1.0])).shape
    (3, 10)
    """

    _rescales = False

    def __init__(
        self, categories: int | ArrayLike, out_of_category: bool = True, label: str | None = None
    ) -> None:
        self.categories = categories
        self.out_of_category = out_of_category
        self.label = label

    @property
    def categories(self) -> np.ndarray:
        """The labels, sorted."""
        return self._categories

    @categories.setter
    def categories(self, value: int | ArrayLike) -> None:
        given = np.arange(positive_int("categories", value)) if np.ndim(value) == 0 else value
        labels, number = np.unique(np.asarray(given), return_counts=True)
        if labels.size == 0 or (number > 1).any():
            twice = labels[number > 1].tolist()
            raise ValueError(
                f"categories is {shown(value)}, with {twice} more than once; expected at least one "
                "label, each once."
            )
        self._categories = labels

    @property
    def out_of_category(self) -> bool:
        """Whether other labels are 0 in all columns, and no error."""
        return self._out_of_category

    @out_of_category.setter
    def out_of_category(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"out_of_category is {value!r}; expected True or False.")
        self._out_of_category = value

    @property
    def n_basis_funcs(self) -> int:
        """Number of categories."""
        return len(self.categories)

    @property
    def bounds(self) -> None:
        """Always None: labels have no range."""

    @keeps_times
    def evaluate(self, *sample_pts: ArrayLike) -> np.ndarray:
        """The columns at samples; see `compute_features`.

        Returns
        -------
        ndarray of shape (n_samples, ..., n_categories)
        """
        return super().evaluate(*(self._numbers(x) for x in sample_pts))

    def compute_features(self, *xi: ArrayLike, epochs: object | None = None) -> FeatureMatrix:
        """The columns at the labels of every bin.

        Parameters
        ----------
        *xi : array of labels, shape (n_bins,) or (n_bins, ...), or Tsd or TsdFrame of numbers
        epochs : array-like of shape (n_epochs, 2), or IntervalSet, optional
            See `BSplineEval`.

        Returns
        -------
        FeatureMatrix of shape (n_bins, n_inputs * n_categories)
            A row with a label of NaN is NaN.

        Raises
        ------
        ValueError
            If a label is none of the categories and ``out_of_category`` is False.
        """
        return super().compute_features(*xi, epochs=epochs)

    def _compute_features(self, *xi, epochs):
        return super()._compute_features(*(self._numbers(x) for x in xi), epochs=epochs)

    def evaluate_on_grid(self, *n_samples: int) -> tuple[np.ndarray, ...]:
        """The categories and their columns, which are those of the identity.

        Parameters
        ----------
        *n_samples : int
            The number of categories.

        Returns
        -------
        grid : ndarray of shape (n_categories,)
        values : ndarray of shape (n_categories, n_categories)

        Raises
        ------
        ValueError
            If another number is given: labels have no points in between.
        """
        if n_samples != (self.n_basis_funcs,):
            raise ValueError(
                f"{self.label} has a grid of its {self.n_basis_funcs} categories; it was asked for "
                f"{', '.join(map(str, n_samples)) or 'none'}. Pass {self.n_basis_funcs}."
            )
        return self.categories, np.eye(self.n_basis_funcs)

    def _numbers(self, x):
        """Number of the category of every sample: -1 for other labels, NaN where it is NaN."""
        labels, timeline = read_values(x, "Samples")
        labels = np.asarray(labels)
        if labels.dtype.kind == "O":  # of a table
            labels = np.array(labels.tolist())
        alike, categories = labels, self.categories
        if (labels.dtype.kind in "US") != (categories.dtype.kind in "US"):
            kind = categories.dtype if labels.dtype.kind in "US" else categories.dtype.kind
            try:
                alike = labels.astype(kind)
            except ValueError:  # names, where the categories are numbers: none of them is known
                alike = np.full(labels.shape, categories[-1] + 1)
        place = np.searchsorted(categories, alike)
        place = np.minimum(place, self.n_basis_funcs - 1)
        known = categories[place] == alike
        missing = np.isnan(labels) if labels.dtype.kind == "f" else np.zeros(labels.shape, bool)
        if not self.out_of_category and not (known | missing).all():
            other = np.unique(labels[~(known | missing)])[:5].tolist()
            raise ValueError(
                f"The samples of {self.label} hold {other}; expected one of "
                f"{self.categories.tolist()}. Pass out_of_category=True for 0 in all columns?"
            )
        numbers = np.where(known, place, np.where(missing, np.nan, -1.0))
        return numbers if timeline is None else timeline.wrap(numbers)

    def _values(self, points):
        values = (points[..., None] == np.arange(self.n_basis_funcs)).astype(np.float64)
        values[np.isnan(points)] = np.nan
        return values
