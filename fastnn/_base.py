"""What both estimators share: parameters, validation, fitted attributes. No numerics."""

import copy
import functools
import inspect
import itertools
import sys
from abc import ABC
from numbers import Integral, Real
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    Interval,
    Options,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted

from ._activations import HIDDEN_ACTIVATIONS, OUT_ACTIVATIONS, check_activations
from ._callbacks import CallbackSupportMixin, Report, Tasks, with_callbacks
from ._checkpoint import description, is_of
from ._given_weights import checked_init, with_weights
from ._inputs import as_table, checked_data, checked_examples, checked_weight, hidden_units
from ._loops import Progress, fit_lbfgs, fit_stochastic
from ._monitor import History, Monitor
from ._network import make_data, make_net, net_to_predict, predict
from ._one_at_a_time import turn
from ._optimizer import Optimizer
from ._schedules import SCHEDULES
from ._standardize import Standardization
from ._validation import by_a_part, by_given_examples
from .kernels.layout import flatten, shapes_of, starts_of, vector_behind, views
from .kernels.rules import SOLVERS

PARAMETERS = """hidden_layer_sizes : int or array-like of int, default=(100,)
        Number of units of each hidden layer. ``()`` is a linear model.
    activation : str, (str, float), or list of these, default='relu'
        Activation function of the hidden layers, or a list with that of each: 'identity',
        'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'selu', 'gelu', 'gelu_erf', 'silu',
        'softplus', 'linear', 'step'. 'gelu' is the approximation by tanh of Hendrycks and Gimpel
        (2016), 'gelu_erf' the function itself, as PyTorch has it by default. A pair gives the
        constant k of ('linear', k), ('step', k), ('leaky_relu', k), ('elu', k). The step function
        has no slope: it is for networks with given weights, see ``from_weights``.
    solver : str, default='adam'
        How the weights are optimised: 'lbfgs' on the whole set; in mini-batches 'sgd', 'adam'
        (Kingma and Ba, 2015), 'adamw', 'nadam', 'rmsprop' or 'adagrad'. ``beta_2`` is also the
        decay of 'rmsprop'.
    alpha : float, default=0.0001
        Strength of the L2 penalty ``alpha / 2 * sum(W**2)``, divided by the size of the mini-batch.
    batch_size : int, 'auto' or 'full', default='auto'
        Examples in a mini-batch; 'auto' is ``min(200, n_samples)``, 'full' is all examples: batch
        gradient descent. Not used by 'lbfgs'.
    learning_rate : str or callable, default='constant'
        Schedule of the learning rate. Of 'sgd' alone: 'invscaling' is
        ``learning_rate_init / (t + 1)**power_t`` after t examples, 'adaptive' divides by 5
        whenever progress stalls for ``n_iter_no_change`` epochs. Of every solver but 'lbfgs', over
        ``max_iter`` epochs: 'cosine' falls to 0 along half a cosine; 'one_cycle' rises from 1/25
        of ``learning_rate_init`` to all of it in the first 30 % and falls to 1e-4 of it (Smith,
        2018); 'step' divides by 10 after each third; 'warmup' rises linearly in the first 5 %,
        rounded up, and stays; a callable gives the rate of each epoch, counted from 0. Each
        ``fit`` begins at epoch 0, also with ``warm_start``; ``partial_fit`` counts on, and past
        ``max_iter`` the rate stays. Training may stop earlier: see ``n_iter_no_change``.
    learning_rate_init : float, default=0.001
        Initial learning rate of 'sgd' and 'adam'; the highest of the schedules over epochs.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Maximum number of epochs ('sgd', 'adam') or iterations ('lbfgs').
    shuffle : bool, default=True
        Whether to visit the examples in a new order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the validation split and the shuffling.
    tol : float, default=1e-4
        What counts as progress of the loss, or of the validation score with ``early_stopping``.
    verbose : bool, int or 'progress', default=False
        Whether to print the progress: scikit-learn's lines, or where there is more to tell (given
        validation examples, ``scoring``, a schedule over epochs) one line for each epoch with
        losses, score, learning rate and seconds. 'progress' is a progress bar of ``fit`` (needs
        tqdm).
    warm_start : bool, default=False
        Whether ``fit`` goes on from the present weights. A copy that a callback was given after an
        epoch (``fitted_estimator``) goes on with that very fit, as if it had never stopped.
    momentum : float in [0, 1], default=0.9
        Momentum of 'sgd'.
    nesterovs_momentum : bool, default=True
        Whether that is Nesterov's.
    early_stopping : bool, default=False
        Whether to set ``validation_fraction`` of the examples aside, stop when their score does
        not improve, and keep the weights of the best epoch. The examples given to ``fit`` as
        ``X_val`` take their place. On small tables the score of a classifier, its accuracy, is too
        coarse to stop by and costs much (.81 instead of .98 on the wines): take
        ``scoring='loss'``, see docs/validation.md.
    validation_fraction : float in [0, 1), default=0.1
        The fraction set aside. 0 goes with ``early_stopping`` only where ``X_val`` is given.
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.999
        Decay of Adam's first and second moments.
    epsilon : float, default=1e-8
        Adam's guard against division by zero.
    n_iter_no_change : int or inf, default=10
        Epochs without progress before training stops.
    max_fun : int, default=15000
        Maximum number of loss evaluations of 'lbfgs'.
    n_threads : int or None, default=None
        Number of threads, within what the process may use: fewer while other programs are in the
        way. -1 is all that it may use, -2 all but one, and so on. None: as many as pay off for the
        size of the network and mini-batch. The results do not depend on it, to the last bit.
    {more_parameters}
    out_activation : str, (str, float) or None, default=None
        Activation function of the output layer; None is the one that belongs to the loss.
    init : {{'glorot', 'he', 'notes'}} or (list of ndarray, list of ndarray), default='glorot'
        Initial weights: uniform as in scikit-learn (Glorot and Bengio, 2010); normal with variance
        2 / fan_in and biases 0 (He et al., 2015); normal with variance 1 / fan_in and biases 1, as
        in the notes; or given, ``(coefs, intercepts)`` in the shapes of ``coefs_``, of which
        copies are trained.
    standardize : bool, default=False
        Whether to train on features of mean 0 and variance 1. Afterwards that is part of the first
        layer: the fitted network takes X as it is. Sparse features are scaled, not centred, as by
        ``StandardScaler(with_mean=False)``. Training that goes on keeps the first means and scales.
        X is not copied for it.
    dropout : float in [0, 1) or list of float, default=0
        Probability with which each hidden unit is left out in a training step, for all hidden
        layers or for each; what is left is scaled up (inverted dropout, Srivastava et al., 2014).
    weight_decay : float, default=0.01
        Decoupled weight decay of 'adamw' (Loshchilov and Hutter, 2019); not of biases.
    clip_norm : float or None, default=None
        Largest Euclidean norm of the gradient of a mini-batch; longer ones are scaled down to it.
    max_time : float or None, default=None
        Seconds of training, without compiling, after which it ends at the end of an epoch (or
        iteration of 'lbfgs'), without a warning.
    scoring : str, callable or None, default=None
        What the validation score is: None is {score}, 'loss' is minus the validation loss, else
        the name of a scorer of scikit-learn or a function of (estimator, X, y), and
        ``sample_weight`` where there are weights.
    weight_average : float in (0, 1), int or None, default=None
        An int k: the fitted weights are the mean of those after each of the last k epochs
        (Izmailov et al., 2018). A float: their exponential moving average with this decay, bias
        corrected. The average is over the epochs of one ``fit`` and takes the place of the
        weights at its end; losses and scores are of the weights before. So ``partial_fit`` leaves
        the weights as they are, and the next fit with ``warm_start`` goes on from the average.
        Not with ``early_stopping``, which keeps other weights. Not used by 'lbfgs'.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (n_in, n_out)
        Weights of each layer, of X's dtype.
    intercepts_ : list of ndarray of shape (n_out,)
        Biases of each layer.
    loss_ : float
        Loss of the last epoch, or at the end of 'lbfgs'.
    best_loss_ : float or None
        Lowest loss of all epochs; None with ``early_stopping``. Not with 'lbfgs'.
    loss_curve_ : list of float
        Loss of each epoch. Not with 'lbfgs'.
    validation_scores_ : list of float or None
        Score of each epoch on the validation examples: {score}, or ``scoring``. Not with 'lbfgs'.
    best_validation_score_ : float or None
        The highest of them. Not with 'lbfgs'.
    best_epoch_ : int or None
        The epoch in which that was, from 1 as in ``validation_scores_``: with ``early_stopping``
        the weights are those of this epoch. Not with 'lbfgs'.
    stop_reason_ : str
        Why training ended: 'no_improvement', 'max_iter', 'max_time', 'diverged' (with
        ``early_stopping``, which keeps the best epoch), 'callback', 'interrupted' or 'partial_fit';
        of 'lbfgs' also 'converged', 'max_fun' and 'line_search'.
    validation_loss_curve_ : list of float or None
        Loss of each epoch on the validation examples, without the penalty. Not with 'lbfgs'.
    n_iter_ : int
        Number of epochs or iterations of the last fit.
    t_ : int
        Number of training examples seen by all fits together.
    n_layers_ : int
        Number of layers, the input layer among them.
    n_outputs_ : int
        Number of output units.
    out_activation_ : str
        Activation function of the output layer.
    n_features_in_ : int
        Number of features of X.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any."""


def own_defaults(estimator_class):
    """Give a class the defaults of those parameters that scikit-learn's has not, as attributes.

    For an estimator that an older version has saved, and one of a subclass whose ``__init__`` sets
    all that scikit-learn knows by itself.
    """
    parameters = inspect.signature(estimator_class.__init__).parameters.values()
    for parameter in itertools.dropwhile(lambda p: p.name != "n_threads", parameters):
        setattr(estimator_class, parameter.name, parameter.default)
    return estimator_class


def set_parameters(estimator, parameters):
    """Set attributes from the ``locals()`` of an ``__init__``, which has two long lists of them.

    scikit-learn wants the names in the signature, and each as an attribute.
    """
    for name, value in parameters.items():
        if name != "self":
            setattr(estimator, name, value)


class BaseMLP(CallbackSupportMixin, BaseEstimator, ABC):
    """What the classifier and the regressor share: everything but the target."""

    _parameter_constraints = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(HIDDEN_ACTIVATIONS), list, tuple],
        "solver": [StrOptions({"lbfgs", *SOLVERS})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto", "full"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive", *SCHEDULES}), callable],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose", StrOptions({"progress"})],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "n_threads": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
        ],
        "out_activation": [None, StrOptions(OUT_ACTIVATIONS), tuple],
        "init": [StrOptions({"glorot", "he", "notes"}), tuple, list],
        "standardize": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "clip_norm": [None, Interval(Real, 0, None, closed="neither")],
        "max_time": [None, Interval(Real, 0, None, closed="neither")],
        "scoring": [None, str, callable],
        "weight_average": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
        ],
    }

    @classmethod
    def from_weights(cls, coefs, intercepts, **params):
        """Make a fitted estimator from given weights, without training.

        Parameters
        ----------
        coefs : list of array-like of shape (n_in, n_out)
            Weights of each layer, copied; float32 if all arrays are.
        intercepts : list of array-like of shape (n_out,)
            Biases of each layer.
        **params : parameters of the estimator
            Such as ``activation``, ``out_activation``, ``loss``. ``hidden_layer_sizes`` follows
            from the weights.

        Returns
        -------
        estimator
            It predicts, and goes on with ``partial_fit`` or ``warm_start``.

        Raises
        ------
        ValueError
            If shapes do not fit or a parameter is not as described.

        Examples
        --------
        >>> from fastnn import MLPRegressor
        >>> line = MLPRegressor.from_weights([[[2.0]]], [[1.0]])  # 1 + 2 x
        >>> line.predict([[0.0], [3.0]])
        array([1., 7.])
        """
        return with_weights(cls, params, coefs, intercepts)

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Fit the network to X and y.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training examples. float32 is kept and computed with; other types become float64.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets: class labels, a label indicator matrix, or real numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each example; None is 1 for all.
        X_val : array-like or sparse matrix of shape (n_validation, n_features), default=None
            Validation examples: ``validation_scores_`` and ``validation_loss_curve_`` are theirs.
            With ``early_stopping`` they are used in place of a part of X. Not with 'lbfgs'. A
            Pipeline transforms them only if it is told to, see below.
        y_val : array-like of shape (n_validation,) or (n_validation, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_validation,), default=None
            Their weights; None is 1 for all.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or an input is not as described, the weights became non-finite, the loss
            never was finite, or the validation examples have no score.

        Warns
        -----
        ConvergenceWarning
            If ``max_iter`` was reached, or numbers became too large in a fit that can be used.
        UserWarning
            If the first loss of X_val is out of all proportion to that of X, and if this estimator
            is a checkpoint of a fit with other data or settings.

        Examples
        --------
        Validation examples in a Pipeline, transformed as X is:

        >>> import sklearn
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import train_test_split
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from fastnn import MLPClassifier
        >>> X, X_val, y, y_val = train_test_split(*load_iris(return_X_y=True), random_state=0)
        >>> with sklearn.config_context(enable_metadata_routing=True):
        ...     mlp = MLPClassifier(early_stopping=True, scoring="loss", max_iter=500)
        ...     mlp = mlp.set_fit_request(X_val=True, y_val=True)
        ...     model = make_pipeline(StandardScaler(), mlp, transform_input=["X_val"])
        ...     model = model.fit(X, y, X_val=X_val, y_val=y_val)
        """
        run = BaseMLP._fit
        if "_skl_callbacks" in vars(self):
            run = with_callbacks(run)
        with turn(self, going_on=bool(self.warm_start)) as warnings:
            validation = X_val, y_val, sample_weight_val
            warnings += run(self, X, y, sample_weight, incremental=False, validation=validation)
        return self

    def _fit(self, X, y, sample_weight, incremental, validation=(None, None, None)):
        """Train, from the first check to the fitted attributes.

        Returns
        -------
        list of (message, category)
            Warnings, for when the fit has succeeded.
        """
        settings = self._settings()
        self._check_together(incremental, *validation)
        first_pass = not hasattr(self, "coefs_") or not (settings.warm_start or incremental)

        X = as_table(X)
        given = X, y, sample_weight
        X, y = checked_data(self, X, y, reset=first_pass)
        targets = self._learn_targets(settings, y, settings.warm_start or incremental, incremental)
        target = targets.encode(y)
        sample_weight = checked_weight(sample_weight, X)
        network = self._network_settings(settings, targets, X.shape[1])
        self.n_outputs_ = network["units"][-1]
        examples = self._checked_validation(targets, validation, X.dtype)

        names = "X", "y", "sample_weight", "X_val", "y_val", "sample_weight_val"
        arrays = X, target, sample_weight, *(examples or (None, None, None))
        # Called only where there is a checkpoint to write or to go on from.
        fit = functools.partial(description, settings, **dict(zip(names, arrays, strict=True)))

        progress, rng = self._begin(settings, network, X.dtype, first_pass, incremental, fit)
        theta = progress.theta
        history = History() if first_pass else History.going_on(self)
        scaling = self._standardization(X, target, network["out_activation"], first_pass)
        # Given weights are those of X itself.
        fresh = progress.n_epochs > 0 or (first_pass and isinstance(settings.init, str))
        target = scaling.of_targets(target)
        in_codes = targets.kind == "binary" or network["loss"] == "cross_entropy"
        data = make_data(
            X,
            standardized=scaling.of_features(X),
            codes=target if in_codes else None,
            targets=None if in_codes else targets.values(target, X.dtype),
            weights=targets.training_weight(sample_weight, target, incremental),
        )
        seed = int(rng.randint(2**31)) if np.any(network["dropout"]) else 0
        net = make_net(**network, seed=seed)
        rows, watched = np.arange(len(target)), None
        report = Report(settings, type(self).__name__, not incremental, examples is not None)
        tasks = self._tasks(settings, history, progress, given, incremental, fit)
        with scaling.training(self.coefs_, self.intercepts_, fresh), tasks:
            if settings.solver == "lbfgs":
                return fit_lbfgs(settings, net, data, rows, theta, history, tasks, report)
            if examples is not None:
                watched = by_given_examples(self, targets, net, theta, examples, validation[:2])
            elif settings.early_stopping:
                rows, watched = by_a_part(
                    self, targets, net, theta, data, target, sample_weight, given[0], y, rng
                )
            history.begin(progress, settings.early_stopping, watched is not None)
            self._optimizer = self._going_optimizer(settings, progress, incremental)
            monitor = Monitor(
                settings, history, progress, self._optimizer, watched, report, first_pass
            )
            return fit_stochastic(
                settings, net, data, rows, progress, monitor, rng, incremental, tasks, report
            )

    def _settings(self):
        """The parameters as they are now, checked: what training goes by to its end."""
        # Also those that a subclass has fixed and does not take.
        parameters = {
            name: getattr(self, name, default) for name, default in self._own_parameters().items()
        }
        validate_parameter_constraints(
            self._parameter_constraints,
            self.get_params(deep=False) | parameters,
            type(self).__name__,
        )
        return SimpleNamespace(**parameters)

    def _network_settings(self, settings, targets, n_features):
        """The arguments of ``make_net``, checked."""
        hidden = hidden_units(settings.hidden_layer_sizes)
        of_targets = targets.network()
        activation = check_activations(
            settings.activation, len(hidden), of_targets["out_activation"], fitting=True
        )
        return dict(
            units=[n_features, *hidden, targets.n_outputs],
            activation=activation,
            dropout=self._check_dropout(len(hidden)),
            **of_targets,
        )

    def _checked_validation(self, targets, validation, dtype):
        """X_val, encoded y_val and sample_weight_val; None if they were not given."""
        X, y, sample_weight = validation
        if X is None:
            return None
        try:
            X, y = checked_data(self, X, y, reset=False)
            X = X.astype(dtype, copy=False)
            return X, self._encode_more(targets, y), checked_weight(sample_weight, X)
        except (TypeError, ValueError) as error:
            make = TypeError if isinstance(error, TypeError) else ValueError
            raise make(f"X_val, y_val or sample_weight_val: {error}") from error

    def _begin(self, settings, network, dtype, first_pass, incremental, fit):
        """``Progress`` with the weights to begin with, and the random numbers of this fit."""
        rng = check_random_state(settings.random_state)
        # Of a copy that a callback was given in the middle of a fit.
        checkpoint = vars(self).pop("_progress", None)
        if first_pass:
            theta = self._initialize(network["units"], network["out_activation"], dtype, rng)
            return Progress(theta, rng), rng
        theta = self._present_weights(network["units"], dtype)
        stochastic = settings.solver != "lbfgs" and not incremental
        if checkpoint is None or not stochastic or not is_of(checkpoint, fit()):
            return Progress(theta, rng), rng
        rng = np.random.RandomState() if settings.random_state is None else rng
        rng.set_state(checkpoint.rng_state)
        theta[...] = checkpoint.theta
        checkpoint.theta = theta
        return checkpoint, rng

    def _going_optimizer(self, settings, progress, incremental):
        """The optimizer to go on with, or a new one where there is none of this solver."""
        theta = progress.theta
        optimizer = getattr(self, "_optimizer", None)
        goes_on = incremental or progress.n_epochs > 0
        if optimizer is None or not goes_on or not optimizer.is_of(settings):
            optimizer = Optimizer(settings, theta.size, theta.dtype)
        optimizer.go_on(settings, theta)
        return optimizer

    def _check_together(self, incremental, X_val, y_val, sample_weight_val):
        """Raise ValueError where what is given does not go together."""
        if self.early_stopping and incremental and self.solver != "lbfgs":
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.early_stopping and self.weight_average is not None and self.solver != "lbfgs":
            raise ValueError(
                "weight_average cannot be combined with early_stopping=True, which keeps the "
                "weights of the best epoch."
            )
        alone = X_val is None and sample_weight_val is not None
        if alone or (X_val is None) != (y_val is None):
            raise ValueError(
                "X_val and y_val must be given together, and sample_weight_val only with them."
            )
        if X_val is not None and self.solver == "lbfgs":
            raise ValueError("X_val and y_val are not used by solver='lbfgs': leave them out.")

    def _present_weights(self, units, dtype):
        """The flat parameters to go on with, if they are of layers of these sizes."""
        theta, present_units = self._network(dtype)
        if units != present_units:
            raise ValueError(
                f"The network has layers of {[c.shape for c in self.coefs_]}, which does not "
                f"fit hidden_layer_sizes={self.hidden_layer_sizes}, {units[0]} features and "
                f"{units[-1]} outputs: going on with other sizes is not possible."
            )
        if vector_behind(self.coefs_, self.intercepts_) is not theta:
            self.coefs_, self.intercepts_ = views(theta, units)
        return theta

    def _check_dropout(self, n_hidden):
        """The rate of each hidden layer."""
        rates = self.dropout
        if isinstance(rates, Real):
            rates = [rates] * n_hidden
        if len(rates) != n_hidden or not all(isinstance(p, Real) and 0 <= p < 1 for p in rates):
            raise ValueError(
                "dropout must be a number in [0, 1), or a list with one for each of the "
                f"{n_hidden} hidden layers, got {self.dropout!r}."
            )
        if self.solver == "lbfgs" and any(rates):
            raise ValueError(
                f"dropout={self.dropout!r} makes the loss random, which solver='lbfgs' cannot "
                "minimise: use a stochastic solver."
            )
        return [float(rate) for rate in rates]

    def _initialize(self, units, out_activation, dtype, rng):
        """Set the initial weights and reset the fitted attributes."""
        n_weights = sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(units))
        if n_weights > sys.maxsize // 8:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} and {units[0]} features make "
                f"{n_weights} weights, but at most {sys.maxsize // 8} have an address."
            )
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(units)
        self.out_activation_ = out_activation
        if not isinstance(self.init, str):
            theta = flatten(*checked_init(self.init, units), dtype)
            self.coefs_, self.intercepts_ = views(theta, units)
            return theta
        theta = np.empty(starts_of(units)[-1], dtype)
        self.coefs_, self.intercepts_ = views(theta, units)
        factor = 2.0 if self.activation == "logistic" else 6.0
        for W, b in zip(self.coefs_, self.intercepts_, strict=True):
            fan_in, fan_out = W.shape
            if self.init == "glorot":
                bound = np.sqrt(factor / (fan_in + fan_out))
                W[...] = rng.uniform(-bound, bound, W.shape)
                b[...] = rng.uniform(-bound, bound, b.shape)
            else:
                variance, bias = {"he": (2 / fan_in, 0), "notes": (1 / fan_in, 1)}[self.init]
                W[...] = rng.normal(0, np.sqrt(variance), W.shape)
                b[...] = bias
        return theta

    def _standardization(self, X, target, out_activation, first_pass):
        """What to standardise in this fit, as far as it is wanted."""
        targets = getattr(self, "standardize_target", False)
        if targets and out_activation != "identity":
            raise ValueError(
                "standardize_target=True needs an identity as output activation, but "
                f"loss={self.loss!r} and out_activation={self.out_activation!r} make it "
                f"{out_activation!r}."
            )
        if first_pass or not hasattr(self, "_scaling"):
            self._scaling = Standardization()
        self._scaling.learn(X, target, self.standardize, targets)
        return self._scaling

    @classmethod
    def _own_parameters(cls):
        """The parameters of fastnn's constructor and their defaults, whatever a subclass takes."""
        own = next(c for c in cls.__mro__ if c.__module__.startswith("fastnn."))
        parameters = inspect.signature(own).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    @property
    def Theta_(self):
        """Weights of each layer in the layout of the notes, the biases in the first column.

        Returns
        -------
        list of ndarray of shape (n_out, n_in + 1)
            Read-only views of ``coefs_`` and ``intercepts_``.
        """
        check_is_fitted(self)
        theta, units = self._network()
        Theta = []
        for (first, last), n_out in zip(
            itertools.pairwise(starts_of(units)), units[1:], strict=True
        ):
            Theta.append(theta[first:last].reshape(-1, n_out).T)
            Theta[-1].flags.writeable = False
        return Theta

    def _tasks(self, settings, history, progress, given, incremental, fit):
        """The fit and its epochs as scikit-learn's callbacks see them."""
        X, y, sample_weight = given
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        by_lbfgs = settings.solver == "lbfgs"

        def publish():
            for name, value in history.attributes(epochs=not by_lbfgs).items():
                setattr(self, name, value)

        def attributes():
            """What makes a copy predict, and go on with this fit."""
            going_on = history.attributes(epochs=not by_lbfgs)
            if not by_lbfgs:
                progress.fit = progress.fit or fit()
                going_on |= {"_progress": progress, "_optimizer": self._optimizer}
            return self._fitted_weights(progress.theta) | copy.deepcopy(going_on)

        # scipy reports each iteration at its end, so one more begins than there are.
        name, most = ("iteration", 1) if by_lbfgs else ("epoch", 0)
        most += settings.max_iter
        called = not incremental
        return Tasks(self, name, most, publish, attributes, called, X=X, y=y, metadata=metadata)

    def _fitted_weights(self, theta):
        """A copy of what would be ``coefs_`` and ``intercepts_`` if training ended with theta."""
        units = self._units(self.coefs_, self.intercepts_)
        coefs, intercepts = views(theta.copy(), units)
        self._scaling.fold(coefs, intercepts)
        return {"coefs_": coefs, "intercepts_": intercepts}

    def _network(self, dtype=None):
        """The flat parameters behind ``coefs_``, and the units of each layer, the input first.

        A copy if ``coefs_`` were replaced, or are of another type than ``dtype``. What is returned
        belongs together, whatever other threads do.
        """
        coefs, intercepts = self.coefs_, self.intercepts_
        units = self._units(coefs, intercepts)
        theta = vector_behind(coefs, intercepts)
        known = theta is not None and theta.dtype in (np.float32, np.float64)
        if known and (dtype is None or dtype == theta.dtype):  # NumPy's float64 == None
            return theta, units
        if dtype is None:
            dtype = np.result_type(*coefs, np.float32)
            dtype = np.float32 if dtype == np.float32 else np.float64
        # What was given stays where it is: the user may go on to write into it.
        return flatten(coefs, intercepts, dtype), units

    def _units(self, coefs, intercepts):
        """Units of each layer, by weights that fit each other and what was fitted."""
        units = [len(coef) for coef in coefs] + [coefs[-1].shape[-1]]
        shapes = [coef.shape for coef in coefs], [intercept.shape for intercept in intercepts]
        if shapes != shapes_of(units):
            raise ValueError(
                "coefs_ must have shapes (n_in, n_out) and intercepts_ (n_out,), and each layer "
                f"begin where the last has ended, but their shapes are {shapes[0]} and {shapes[1]}."
            )
        fitted = self.n_features_in_, self.n_outputs_, self.n_layers_
        if (units[0], units[-1], len(units)) != fitted:
            raise ValueError(
                f"coefs_ and intercepts_ are of a network with layers of {units} units, but the "
                f"estimator was fitted with n_features_in_={fitted[0]}, n_outputs_={fitted[1]} and "
                f"n_layers_={fitted[2]}."
            )
        return units

    def _outputs(self, X):
        """Outputs of the network for X, ``(n_samples, n_outputs)``."""
        X = checked_examples(self, X)
        theta, units = self._network()
        if X.dtype != theta.dtype:
            # The wider of the two types, as a NumPy product of X and coefs_ would have.
            dtype = np.result_type(X.dtype, theta.dtype)
            X, theta = X.astype(dtype, copy=False), theta.astype(dtype, copy=False)
        if units[0] != X.shape[1]:
            raise ValueError("The estimator was fitted to other data while it predicted.")
        out_activation = self.out_activation_
        activations = check_activations(self.activation, len(units) - 2, out_activation)
        net = net_to_predict(tuple(units), tuple(activations), out_activation)
        return predict(net, theta, make_data(X), np.arange(X.shape[0]), self.n_threads)

    def __getstate__(self):
        # What scikit-learn hangs on an estimator during a fit leads to all of its callbacks.
        passing = "_callback_fit_ctx", "_skl_callbacks_to_teardown"
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in passing}

    def __setstate__(self, state):
        super().__setstate__(state)
        # What a version that saved the estimator had not yet.
        if hasattr(self, "coefs_"):
            if getattr(self, "validation_scores_", None) is not None:
                unknown = [np.nan] * len(self.validation_scores_)
                vars(self).setdefault("validation_loss_curve_", unknown)
            theta, units = self._network()
            if vars(self).get("coefs_") is not None:  # a subclass may keep them elsewhere
                vars(self)["coefs_"], vars(self)["intercepts_"] = views(theta, units)

    def _supports_partial_fit(self):
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
