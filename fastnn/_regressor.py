"""The regressor: real targets in, real outputs out."""

from numbers import Real

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from ._base import PARAMETERS, BaseMLP, own_defaults
from ._one_at_a_time import turn
from ._scores import score
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
    __doc__ = f"""Multilayer perceptron regressor, a drop-in for scikit-learn's.

    With equal settings and ``random_state``, float64 results agree with
    ``sklearn.neural_network.MLPRegressor`` to rounding.

    Parameters
    ----------
    loss : str, default='squared_error'
        'squared_error' is half the squared error, 'rss' the squared error summed over outputs,
        'absolute_error', 'huber' and 'quantile' are robust; 'poisson' (y >= 0) and 'gamma' (y > 0)
        are half the deviance, with an exponential output.
    {PARAMETERS.format(score="that of ``score``", more_parameters=_MORE_PARAMETERS)}

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

    _parameter_constraints = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions(set(LOSSES) - {"log_loss", "cross_entropy"})],
        "quantile": [Interval(Real, 0, 1, closed="neither"), "array-like"],
        "huber_delta": [Interval(Real, 0, None, closed="neither")],
        "standardize_target": ["boolean"],
    }

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        n_threads=None,
        out_activation=None,
        init="glorot",
        standardize=False,
        dropout=0.0,
        weight_decay=0.01,
        clip_norm=None,
        max_time=None,
        scoring=None,
        weight_average=None,
        quantile=0.5,
        huber_delta=1.0,
        standardize_target=False,
    ):
        BaseMLP.__init__(
            self,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            n_threads=n_threads,
            out_activation=out_activation,
            init=init,
            standardize=standardize,
            dropout=dropout,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            max_time=max_time,
            scoring=scoring,
            weight_average=weight_average,
        )
        self.loss = loss
        self.quantile = quantile
        self.huber_delta = huber_delta
        self.standardize_target = standardize_target

    @available_if(lambda self: self._supports_partial_fit())
    def partial_fit(self, X, y, sample_weight=None):
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
        """
        with turn(self, going_on=True) as warnings:
            warnings += self._fit(X, y, sample_weight, incremental=True)
        return self

    def _encode(self, y, incremental):
        """Kind of target, and targets ``(n,)`` or ``(n, n_outputs)``."""
        self._quantiles = _checked_quantiles(self.quantile) if self.loss == "quantile" else None
        target = self._targets(y)
        if hasattr(self, "coefs_") and (self.warm_start or incremental):
            self._check_n_outputs(target, "y", "what the network was fitted to")
        return self.loss, target

    def _targets(self, y):
        """Targets of training or validation, one column for each output."""
        least = y.min()
        if (self.loss == "poisson" and least < 0) or (self.loss == "gamma" and least <= 0):
            sign = ">= 0" if self.loss == "poisson" else "> 0"
            raise ValueError(f"loss={self.loss!r} needs y {sign}, but the least of y is {least}.")
        if self._quantiles is not None and np.ndim(self.quantile) == 1:
            # Column t * n_quantiles + q is quantile q of target t.
            return np.repeat(y.reshape(len(y), -1), len(self._quantiles), axis=1)
        return y

    def _loss_and_output(self, kind):
        """Name of the loss, output activation, settings of the loss."""
        for name, value in (("quantile", 0.5), ("huber_delta", 1.0)):
            given = getattr(self, name)
            if self.loss != name.split("_")[0] and (np.ndim(given) > 0 or given != value):
                raise ValueError(
                    f"{name}={given!r} is for loss={name.split('_')[0]!r}, got loss={self.loss!r}."
                )
        settings = {}
        if self.loss == "huber":
            settings["bend"] = float(self.huber_delta)
        if self.loss == "quantile":
            settings["quantiles"] = _checked_quantiles(self.quantile)
        out_activation = self.out_activation or LOSSES[self.loss].activation
        return self.loss, out_activation, settings

    def _encode_more(self, y):
        """Targets of other examples, in the form of those of the training examples."""
        y = self._targets(y)
        self._check_n_outputs(y, "y_val", "y")
        return y

    def _check_n_outputs(self, target, name, other):
        n_outputs = self._n_outputs(None, target)
        if n_outputs != self.n_outputs_:
            quantiles = f", by quantile={self.quantile!r}" if self._n_quantiles() > 1 else ""
            raise ValueError(
                f"{name} has {n_outputs} outputs{quantiles}, but {other} has {self.n_outputs_}."
            )

    def _n_outputs(self, kind, target):
        return 1 if target.ndim == 1 else target.shape[1]

    def _score_outputs(self, target, output, kind, weight):
        """What ``score`` is, of network outputs against encoded targets."""
        output = self._sorted_quantiles(output)
        n_quantiles = self._n_quantiles()
        if n_quantiles > 1:  # each target was repeated
            target = target[:, ::n_quantiles]
        output = output.ravel() if output.shape[1] == 1 else output
        # In float64: squares of what float32 holds may be infinite.
        target, output = target.astype(np.float64), output.astype(np.float64)
        return self._measure(target, output, weight, float(self.huber_delta))

    def _measure(self, y, prediction, weight, huber_delta):
        quantiles = getattr(self, "_quantiles", None)
        return score(self.loss, y, prediction, weight, quantiles=quantiles, huber_delta=huber_delta)

    def predict(self, X):
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
        """
        output = self._sorted_quantiles(self._outputs(X))
        return output.ravel() if output.shape[1] == 1 else output

    def score(self, X, y, sample_weight=None):
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
        """
        scaler = self._scaling.targets if hasattr(self, "_scaling") else None
        huber_delta = float(self.huber_delta) * (1.0 if scaler is None else scaler.scale_)
        return self._measure(y, self.predict(X), sample_weight, huber_delta)

    def _sorted_quantiles(self, output):
        """Outputs with the quantiles of each target in ascending order: they do not cross."""
        n_quantiles = self._n_quantiles()
        if n_quantiles == 1:
            return output
        return np.sort(output.reshape(len(output), -1, n_quantiles), axis=2).reshape(output.shape)

    def _n_quantiles(self):
        return 1 if getattr(self, "_quantiles", None) is None else len(self._quantiles)


def _checked_quantiles(quantile):
    """The quantiles as a vector, for a number or a list."""
    quantiles = np.atleast_1d(np.asarray(quantile, np.float64))
    inside = (quantiles > 0) & (quantiles < 1)
    if quantiles.ndim != 1 or not (
        quantiles.size and inside.all() and (np.diff(quantiles) > 0).all()
    ):
        raise ValueError(
            f"quantile must be in (0, 1), or a list of such numbers in ascending order; "
            f"got {quantile!r}."
        )
    return quantiles
