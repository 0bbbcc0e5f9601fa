"""The regressor: real targets in, real outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions

from ._base import BaseMLP
from ._one_at_a_time import turn
from ._parameters import (
    CONSTRAINTS,
    NOTES,
    of_mini_batches,
    own_defaults,
    parameters,
    set_parameters,
)
from ._targets import Reals, checked_quantiles
from ._typing import Activation, Array, Data, Matrix, Schedule, Scoring, Seed, Units, Weights
from .kernels.losses import LOSSES

_MORE_PARAMETERS = """quantile : float or list of float in (0, 1), default=0.5
        The quantile that the loss 'quantile' estimates; only for that loss. A list, in ascending
        order, estimates several at once: ``predict`` returns a column for each, ascending within
        each row, and with several targets those of the first target come first. The score is their
        mean, see ``score``.
    huber_delta : float, default=1.0
        Error from which on the loss 'huber' grows linearly, in units of y; only for that loss.
    standardize_target : bool, default=False
        Whether to train on targets of mean 0 and variance 1, with an identity as output activation.
        Afterwards that is part of the last layer: the fitted network gives y as it is. Losses, and
        ``huber_delta``, are in units of the standard deviation of y."""


@own_defaults
class MLPRegressor(RegressorMixin, BaseMLP):
    __doc__ = rf"""Multilayer perceptron regressor, a drop-in for scikit-learn's.

    With equal settings and ``random_state``, float64 results agree with
    ``sklearn.neural_network.MLPRegressor`` to rounding.

    Parameters
    ----------
    loss : str, default='squared_error'
        What is minimised, of a prediction a for a target y; ``score`` may measure another thing.

        ================  =========================================  ==============================
        name              loss                                       for
        ================  =========================================  ==============================
        'squared_error'   (a - y)² / 2, the mean over outputs        means
        'rss'             (a - y)², the sum over outputs             means
        'absolute_error'  \|a - y\|                                  medians, despite outliers
        'huber'           (a - y)² / 2, linear from ``huber_delta``  means, despite outliers
        'quantile'        the pinball loss of ``quantile``           forecasts with intervals
        'poisson'         half the deviance; y >= 0, output exp(z)   counts
        'gamma'           half the deviance; y > 0, output exp(z)    amounts
        ================  =========================================  ==============================
    {parameters("that of ``score``", _MORE_PARAMETERS)}

    See Also
    --------
    MLPClassifier : The same for classes.
    d2_quantile_score : The score of several quantiles.
    LossCurveDisplay : A picture of the fit.

    {NOTES}

    Examples
    --------
    >>> from fastnn import MLPRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> X, y = load_diabetes(return_X_y=True)
    >>> X, y = scale(X), scale(y)
    >>> regressor = MLPRegressor(alpha=1, max_iter=500, random_state=0).fit(X, y)
    >>> regressor.score(X, y) > 0.6
    True
    """

    quantile: float | Sequence[float]
    huber_delta: float
    standardize_target: bool

    _parameter_constraints = {
        **CONSTRAINTS,
        "loss": [StrOptions(set(LOSSES) - {"log_loss", "cross_entropy"})],
        "quantile": [Interval(Real, 0, 1, closed="neither"), "array-like"],
        "huber_delta": [Interval(Real, 0, None, closed="neither")],
        "standardize_target": ["boolean"],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Units = (100,),
        activation: Activation | Sequence[Activation] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Seed | None = None,
        tol: float = 1e-4,
        verbose: bool | int | str = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        n_threads: int | None = None,
        out_activation: Activation | None = None,
        init: str | tuple[Weights, Weights] = "glorot",
        standardize: bool = False,
        dropout: float | Sequence[float] = 0.0,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
        max_time: float | None = None,
        scoring: Scoring | None = None,
        weight_average: float | None = None,
        lazy_update: bool = False,
        quantile: float | Sequence[float] = 0.5,
        huber_delta: float = 1.0,
        standardize_target: bool = False,
    ) -> None:
        set_parameters(self, locals())

    @of_mini_batches
    def partial_fit(self, X: Data, y: Data, sample_weight: ArrayLike | None = None) -> Self:
        """Go through the given examples once, in mini-batches, from the present weights.

        Every parameter acts from the next call on. A new ``learning_rate_init``, or another
        schedule, sets the rate anew; another ``solver`` begins with a new state of its own
        (``nesterovs_momentum`` keeps the velocities). In scikit-learn none of them acts.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each example.

        Returns
        -------
        self : MLPRegressor
            The fitted estimator.

        See Also
        --------
        fit : Train to the end, on all examples.

        Examples
        --------
        >>> from fastnn import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=(), solver="sgd", momentum=0, alpha=0)
        >>> model = model.set_params(init=([[[0.0]]], [[0.0]]))
        >>> model.partial_fit([[1.0]], [1.0]).coefs_  # a step of 0.001 times the slope -1
        [array([[0.001]])]
        """
        with turn(self, going_on=True) as warnings:
            warnings += self._fit(X, y, sample_weight, incremental=True)
        return self

    def _learn_targets(self, settings: Any, y: Matrix, goes_on: bool, incremental: bool) -> Reals:
        """As of ``BaseMLP``, with the quantiles of this fit."""
        self._quantiles = (
            checked_quantiles(settings.quantile) if settings.loss == "quantile" else None
        )
        known = goes_on and hasattr(self, "coefs_")
        return self._targets(settings, self.n_outputs_ if known else None)

    def _targets(self, settings: Any, n_outputs: int | None) -> Reals:
        return Reals(settings, getattr(self, "_quantiles", None), n_outputs)

    def _encode_more(self, targets: Any, y: Array) -> Array:
        return targets.encode(y, "y_val", "y")

    def predict(self, X: Data) -> Array:
        """Predict target values.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The outputs of the network; with a list of quantiles, a column for each quantile of the
            first target, then of the second, and so on.

        Examples
        --------
        >>> from fastnn import MLPRegressor
        >>> MLPRegressor.from_weights([[[2.0]]], [[1.0]]).predict([[3.0]])
        array([7.])
        """
        output = self._outputs(X)
        return self._targets(self, self.n_outputs_).decide(output)

    def score(self, X: Data, y: Data, sample_weight: ArrayLike | None = None) -> float:
        """Share of the loss that the predictions explain.

        It is R^2 for the losses 'squared_error' and 'rss', and for 'poisson' as in scikit-learn;
        for the others D^2, which is R^2 with the loss in place of the squared error: of
        'absolute_error' scikit-learn's ``d2_absolute_error_score``, of 'quantile'
        ``d2_pinball_score`` (the mean over all quantiles, see ``d2_quantile_score``), of 'gamma'
        ``d2_tweedie_score`` with power 2; of 'huber' by the same formula. Several targets have the
        mean of their scores. ``early_stopping`` goes by the same measure, unless ``scoring`` says
        otherwise; so does a search without a scorer.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each example.

        Returns
        -------
        float
            At most 1; 0 is what the best constant would have, such as the mean of y for R^2.

        Examples
        --------
        >>> from fastnn import MLPRegressor
        >>> MLPRegressor.from_weights([[[2.0]]], [[1.0]]).score([[0.0], [1.0]], [1.0, 3.0])
        1.0
        """
        return self._score_of(self.predict(X), y, sample_weight)

    def _score_of(self, prediction: Array, y: Any, sample_weight: ArrayLike | None) -> float:
        scaler = self._scaling.targets if hasattr(self, "_scaling") else None
        targets = self._targets(self, self.n_outputs_)
        unit = 1.0 if scaler is None else scaler.scale_
        return targets.measure(y, prediction, sample_weight, unit)
