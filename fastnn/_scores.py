"""D^2, the share of a loss that a regressor explains, for each loss that R^2 does not measure.

D^2 = 1 - loss(y, prediction) / loss(y, c), where c is the constant with the least loss: 1 at best,
0 for the constant. R^2 is D^2 of the squared error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from sklearn.metrics import (
    d2_absolute_error_score,
    d2_pinball_score,
    d2_tweedie_score,
    r2_score,
)
from sklearn.utils import check_array, check_consistent_length

from ._typing import Array


def d2_quantile_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    quantiles: float | Sequence[float] | Array,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Share of the pinball loss that predicted quantiles explain, on the average over them.

    For one quantile and one target it is scikit-learn's ``d2_pinball_score``. As a scorer of
    predictions of several quantiles: ``make_scorer(d2_quantile_score, quantiles=[0.1, 0.9])``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Targets.
    y_pred : array-like of shape (n_samples, n_targets * n_quantiles)
        A column for each quantile of the first target, then of the second, and so on: what
        ``MLPRegressor(loss='quantile', quantile=[...])`` predicts. One quantile of one target may
        also have shape ``(n_samples,)``.
    quantiles : float or list of float in (0, 1)
        Which quantiles they are.
    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each example.

    Returns
    -------
    float
        At most 1; 0 is what the quantiles of ``y_true`` would have, whatever X is.

    Raises
    ------
    ValueError
        If there is not a column for each quantile of each target.

    See Also
    --------
    sklearn.metrics.d2_pinball_score : The same of one quantile.
    MLPRegressor : Predicts several quantiles with ``loss='quantile'``.

    Examples
    --------
    >>> from fastnn import d2_quantile_score
    >>> y = [1.0, 2.0, 3.0, 4.0]
    >>> exact = [[value, value] for value in y]
    >>> d2_quantile_score(y, exact, quantiles=[0.1, 0.9])
    1.0
    """
    quantiles = np.atleast_1d(quantiles)
    y_true, y_pred = (_columns(a) for a in (y_true, y_pred))
    if y_pred.shape[1] != y_true.shape[1] * len(quantiles):
        raise ValueError(
            f"y_pred must have a column for each of {len(quantiles)} quantiles of "
            f"{y_true.shape[1]} targets, {y_true.shape[1] * len(quantiles)} in all, got "
            f"{y_pred.shape[1]}."
        )
    scores = [
        d2_pinball_score(
            y_true, y_pred[:, k :: len(quantiles)], sample_weight=sample_weight, alpha=q
        )
        for k, q in enumerate(quantiles)
    ]
    return float(np.mean(scores))


def score(
    loss: str,
    y_true: ArrayLike,
    y_pred: Array,
    sample_weight: ArrayLike | None = None,
    *,
    quantiles: Any = None,
    huber_delta: Any = None,
) -> float:
    """What ``MLPRegressor.score`` is with this loss.

    Parameters
    ----------
    loss : str
        'squared_error', 'rss' and 'poisson', of which scikit-learn has two, have R^2.
    y_true : array-like of shape (n,) or (n, n_targets)
    y_pred : ndarray of shape (n,) or (n, n_outputs)
    sample_weight : array-like of shape (n,), default=None
    quantiles : of the loss 'quantile'
    huber_delta : float or ndarray of shape (n_targets,)
        Of the loss 'huber'.

    Returns
    -------
    float
        NaN where it has no value.
    """
    if loss == "quantile":
        return d2_quantile_score(y_true, y_pred, quantiles=quantiles, sample_weight=sample_weight)
    if loss == "absolute_error":
        return float(d2_absolute_error_score(y_true, y_pred, sample_weight=sample_weight))
    if loss not in ("gamma", "huber"):
        return float(r2_score(y_true, y_pred, sample_weight=sample_weight))
    y_true, y_pred = _columns(y_true), _columns(y_pred)
    check_consistent_length(y_true, y_pred, sample_weight)
    if loss == "gamma":
        least = np.finfo(y_pred.dtype).tiny  # exp of a large negative number is 0
        scores = [
            d2_tweedie_score(y, np.maximum(a, least), sample_weight=sample_weight, power=2)
            for y, a in zip(y_true.T, y_pred.T, strict=True)
        ]
    else:
        deltas = np.broadcast_to(huber_delta, y_true.shape[1])
        scores = [
            _d2_huber(y, a, delta, sample_weight)
            for y, a, delta in zip(y_true.T, y_pred.T, deltas, strict=True)
        ]
    return float(np.mean(scores))


def _columns(a: Any) -> Array:
    a = check_array(a, ensure_2d=False)
    return a.reshape(len(a), -1)


def _d2_huber(y: Array, a: Array, delta: float, weight: Any) -> float:
    if weight is not None:
        weight = np.asarray(weight)
        y, a, weight = y[weight != 0], a[weight != 0], weight[weight != 0]
    if len(y) < 2:
        return np.nan

    def loss(prediction: float | Array) -> float:
        r = np.abs(y - prediction)
        each = np.where(r <= delta, r**2 / 2, delta * (r - delta / 2))
        return np.average(each, weights=weight)

    low, high = np.min(y), np.max(y)
    if low == high:  # as scikit-learn scores a target that is constant
        return 1.0 if loss(a) == 0 else 0.0
    options = {"xatol": 1e-6 * (high - low)}  # the loss is flat there
    constant = minimize_scalar(loss, bounds=(low, high), method="bounded", options=options)
    return 1 - loss(a) / constant.fun
