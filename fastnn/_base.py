"""What both estimators share: parameters, validation, fitted attributes. No numerics."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted

from . import _summary
from ._activations import check_activations
from ._callbacks import Followed, MemberReport, Report, Tasks, with_callbacks
from ._checkpoint import Description, description, is_of
from ._documented import Documented
from ._examples import Arrays, Examples
from ._given_weights import checked_init, with_weights
from ._inputs import (
    as_table,
    checked_data,
    checked_examples,
    checked_weight,
    errors_about,
    hidden_units,
)
from ._loops import Progress, fit_lbfgs, fit_stochastic
from ._monitor import History, Monitor
from ._network import make_data, make_net, net_to_predict, predict
from ._one_at_a_time import turn
from ._optimizer import Optimizer
from ._parameters import CONSTRAINTS
from ._standardize import Standardization
from ._state import shallow_copy
from ._stream_examples import Streamed
from ._stream_validation import StreamedValidation
from ._streams import Stream
from ._typing import Activation, Array, Attributes, Data, Matrix, Parameters, Warnings, Weights
from ._validation import Validation, check_together, given_examples
from .kernels.layout import empty_theta, flatten, shapes_of, starts_of, vector_behind, views

if TYPE_CHECKING:
    from ._targets import Targets


@functools.cache
def _defaults(estimator: type) -> dict[str, Any]:
    """The parameters of a constructor and their defaults."""
    parameters = inspect.signature(estimator).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


class BaseMLP(Followed, Documented, BaseEstimator, Attributes, ABC):
    """What the classifier and the regressor share: everything but the target."""

    _parameter_constraints = CONSTRAINTS
    _continued: Array | None = None  # of sparse X, see make_data; BaseTabular sets it

    @classmethod
    def from_weights(cls, coefs: Weights, intercepts: Weights, **params: Any) -> Self:
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

    def fit(
        self,
        X: Data | Stream,
        y: Data | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Data | Stream | None = None,
        y_val: Data | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), or Stream
            Training examples. float32 is kept and computed with; other types become float64.
            A ``Stream`` gives X, y and sample_weight in batches.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets: class labels, a label indicator matrix, or real numbers. None where X is a
            Stream.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each example; None is 1 for all.
        X_val : array-like, sparse matrix, Stream of shape (n_validation, n_features), default=None
            Validation examples: ``validation_scores_`` and ``validation_loss_curve_`` are theirs.
            With ``early_stopping`` they are used in place of a part of X. Not with 'lbfgs'. A
            Pipeline transforms them only if it is told to, see below. A ``Stream`` gives y_val and
            sample_weight_val as well, and is read in each epoch.
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

    def _fit(
        self,
        X: Data | Stream,
        y: Data | None,
        sample_weight: ArrayLike | None,
        incremental: bool,
        validation: tuple[Any, Any, Any] = (None, None, None),
        held_out: Array | None = None,
        report: Report | MemberReport | None = None,
    ) -> Warnings:
        """Train, from the first check to the fitted attributes.

        Parameters
        ----------
        X, y, sample_weight : as the user gave them
        incremental : bool
            Whether to go through the examples once, for ``partial_fit``.
        validation : (X_val, y_val, sample_weight_val)
        held_out : (n_held,) int64 or None
            Which examples ``early_stopping`` sets aside; None is a random part.
        report : Report or None
            Whom to tell of each epoch; None is by ``verbose``.

        Returns
        -------
        list of (message, category)
            Warnings, for when the fit has succeeded.
        """
        settings = self._settings()
        self._check_together(incremental, *validation)
        first_pass = not hasattr(self, "coefs_") or not (settings.warm_start or incremental)

        given = as_table(X), y, sample_weight
        examples = self._examples(X)(self, settings, *given, first_pass, incremental)
        with contextlib.ExitStack() as closing:
            closing.callback(examples.close)
            arguments = examples, given, validation, held_out, report, closing
            return self._train(settings, first_pass, incremental, *arguments)

    def _train(
        self,
        settings: Parameters,
        first_pass: bool,
        incremental: bool,
        examples: Examples,
        given: tuple[Any, Any, Any],
        validation: tuple[Any, Any, Any],
        held_out: Array | None,
        report: Report | MemberReport | None,
        closing: contextlib.ExitStack,
    ) -> Warnings:
        """``_fit`` from the first network on; parameters as there.

        ``closing`` is to close what is open to the end of the fit.
        """
        targets, dtype = examples.targets, examples.dtype
        if settings.lazy_update and not examples.is_sparse:
            raise ValueError(
                "lazy_update=True is for sparse X, but X is dense: every mini-batch has all of its "
                "features. Set lazy_update=False, or give X as a sparse matrix."
            )
        network = self._network_settings(settings, targets, examples.n_features)
        self.n_outputs_ = network["units"][-1]
        given_val, streamed = None, None
        if isinstance(validation[0], Stream):
            streamed = StreamedValidation(self, settings, targets, validation[0], dtype)
            closing.callback(streamed.close)
        else:
            given_val = self._checked_validation(targets, validation, dtype)

        names = "X_val", "y_val", "sample_weight_val"
        arrays: dict[str, Any] = dict(zip(names, given_val or (None, None, None), strict=True))
        if streamed is not None:
            arrays = streamed.described
        # Called only where there is a checkpoint to write or to go on from.
        fit = functools.partial(description, settings, **examples.described, **arrays)

        progress, rng = self._begin(settings, network, dtype, first_pass, incremental, fit)
        theta = progress.theta
        history = History() if first_pass else History.going_on(self)
        scaling = self._standardization(examples, network["out_activation"], first_pass)
        # Given weights are those of X itself.
        fresh = progress.n_epochs > 0 or (first_pass and isinstance(settings.init, str))
        examples.prepare(scaling, network["loss"])
        seed = int(rng.randint(2**31)) if np.any(network["dropout"]) else 0
        net, held = make_net(**network, seed=seed), None
        if report is None:
            validated = validation[0] is not None
            report = Report(settings, type(self).__name__, not incremental, validated)
        tasks = self._tasks(settings, history, progress, given, incremental, fit)
        with scaling.training(self.coefs_, self.intercepts_, fresh), tasks:
            if settings.solver == "lbfgs":
                assert isinstance(report, Report)  # members are trained by mini-batches
                return fit_lbfgs(settings, net, examples, theta, history, tasks, report)
            of_held = examples.predict
            if streamed is not None:
                held, of_held = streamed.held(scaling), streamed.predict
            elif given_val is not None:
                held = given_examples(given_val, scaling, self._continued, *validation[:2])
            elif held_out is not None:
                assert isinstance(examples, Arrays)  # the encoded table of BaseTabular
                held = examples.hold(held_out)
            elif settings.early_stopping:
                held = examples.set_aside(settings, rng)
            history.begin(progress, settings.early_stopping, held is not None)
            watched = None
            if held is not None:
                present = functools.partial(self._fitted_copy, theta)
                watched = Validation(settings, targets, net, theta, held, present, of_held)
            self._optimizer = self._going_optimizer(settings, progress, incremental)
            monitor = Monitor(
                settings, history, progress, self._optimizer, watched, report, first_pass
            )
            return fit_stochastic(settings, net, examples, monitor, rng, incremental, tasks)

    @staticmethod
    def _examples(X: Any) -> type[Examples]:
        """The class of the examples of X."""
        return Streamed if isinstance(X, Stream) else Arrays

    @abstractmethod
    def _learn_targets(
        self, settings: Parameters, y: Matrix, goes_on: bool, incremental: bool
    ) -> Targets:
        """The kind of target, from y and from what is known of earlier calls."""

    @abstractmethod
    def _targets(self, settings: Any, n_outputs: int) -> Targets:
        """The kind of target of a fitted estimator."""

    @abstractmethod
    def _encode_more(self, targets: Any, y: Matrix) -> Array:
        """Targets of other examples, encoded as those of the training examples."""

    def _settings(self) -> Parameters:
        """The parameters as they are now, checked: what training goes by to its end."""
        # Also those that a subclass has fixed and does not take.
        defaults = self._own_parameters()
        parameters = {name: getattr(self, name, default) for name, default in defaults.items()}
        given = self.get_params(deep=False) | parameters
        # A default is allowed. Hardly anything is changed, and each check takes its time.
        changed = {
            name: value
            for name, value in given.items()
            if name not in defaults or value is not defaults[name]
        }
        validate_parameter_constraints(self._parameter_constraints, changed, type(self).__name__)
        settings = Parameters()
        vars(settings).update(parameters)
        return settings

    def _network_settings(
        self, settings: Parameters, targets: Targets, n_features: int
    ) -> dict[str, Any]:
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

    def _checked_validation(
        self, targets: Targets, validation: tuple[Any, Any, Any], dtype: DTypeLike
    ) -> tuple[Matrix, Array, Array | None] | None:
        """X_val, encoded y_val and sample_weight_val; None if they were not given."""
        X, y, sample_weight = validation
        if X is None:
            return None
        with errors_about("X_val, y_val or sample_weight_val"):
            X, y = checked_data(self, X, y, reset=False)
            X = X.astype(dtype, copy=False)
            return X, self._encode_more(targets, y), checked_weight(sample_weight, X)

    def _begin(
        self,
        settings: Parameters,
        network: dict[str, Any],
        dtype: DTypeLike,
        first_pass: bool,
        incremental: bool,
        fit: Callable[[], Description],
    ) -> tuple[Progress, np.random.RandomState]:
        """``Progress`` with the weights to begin with, and the random numbers of this fit."""
        rng = check_random_state(settings.random_state)
        # A copy that a callback was given in the middle of a fit is a checkpoint of it.
        checkpoint = self.__dict__.pop("_progress", None)
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

    def _going_optimizer(
        self, settings: Parameters, progress: Progress, incremental: bool
    ) -> Optimizer:
        """The optimizer to go on with, or a new one where there is none of this solver."""
        theta = progress.theta
        optimizer = getattr(self, "_optimizer", None)
        goes_on = incremental or progress.n_epochs > 0
        if optimizer is None or not goes_on or not optimizer.is_of(settings):
            optimizer = Optimizer(settings, theta.size, theta.dtype)
        optimizer.go_on(settings, theta)
        return optimizer

    def _check_together(
        self, incremental: bool, X_val: Any, y_val: Any, sample_weight_val: Any
    ) -> None:
        """Raise ValueError where what is given does not go together."""
        if self.early_stopping and incremental and self.solver != "lbfgs":
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.early_stopping and self.weight_average is not None and self.solver != "lbfgs":
            raise ValueError(
                "weight_average cannot be combined with early_stopping=True, which keeps the "
                "weights of the best epoch."
            )
        if not isinstance(X_val, Stream):
            check_together(X_val, y_val, sample_weight_val)
        elif y_val is not None or sample_weight_val is not None:
            raise ValueError(
                "X_val is a Stream, which has y and sample_weight in its batches: leave y_val and "
                "sample_weight_val out."
            )
        if self.lazy_update and self.solver == "lbfgs":
            raise ValueError(
                "lazy_update=True is for mini-batches, but solver='lbfgs' takes all examples at "
                "once: use a stochastic solver, or lazy_update=False."
            )
        if X_val is not None and self.solver == "lbfgs":
            raise ValueError("X_val and y_val are not used by solver='lbfgs': leave them out.")

    def _present_weights(self, units: list[int], dtype: DTypeLike) -> Array:
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

    def _check_dropout(self, n_hidden: int) -> list[float]:
        """The rate of each hidden layer."""
        rates: Any = self.dropout
        if isinstance(rates, Real):
            rates = [rates] * n_hidden
        in_range = [isinstance(p, Real) and 0 <= p < 1 for p in rates]  # type: ignore[operator]
        if len(rates) != n_hidden or not all(in_range):
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

    def _initialize(
        self,
        units: list[int],
        out_activation: Activation,
        dtype: DTypeLike,
        rng: np.random.RandomState,
    ) -> Array:
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
        theta = empty_theta(starts_of(units)[-1], dtype)
        coefs, intercepts = views(theta, units)
        factor = 2.0 if self.activation == "logistic" else 6.0
        for W, b in zip(coefs, intercepts, strict=True):
            fan_in, fan_out = W.shape
            if self.init == "glorot":
                bound = np.sqrt(factor / (fan_in + fan_out))
                W[...] = rng.uniform(-bound, bound, W.shape)
                b[...] = rng.uniform(-bound, bound, b.shape)
            else:
                variance, bias = {"he": (2 / fan_in, 0), "notes": (1 / fan_in, 1)}[self.init]
                W[...] = rng.normal(0, np.sqrt(variance), W.shape)
                b[...] = bias
        self.coefs_, self.intercepts_ = coefs, intercepts  # another thread may predict by them
        return theta

    def _standardization(
        self, examples: Examples, out_activation: Activation, first_pass: bool
    ) -> Standardization:
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
        self._scaling.learn(examples, self.standardize, targets)
        return self._scaling

    @classmethod
    @functools.cache  # scikit-learn looks at the signature each time: a tenth of a short fit
    def _get_param_names(cls) -> list[str]:
        return super()._get_param_names()

    @classmethod
    def _own_parameters(cls) -> dict[str, Any]:
        """The parameters of fastnn's constructor and their defaults, whatever a subclass takes."""
        return _defaults(next(c for c in cls.__mro__ if c.__module__.startswith("fastnn.")))

    @property
    def Theta_(self) -> list[Array]:
        """Weights of each layer in the layout of the notes, the biases in the first column.

        Returns
        -------
        list of ndarray of shape (n_out, n_in + 1)
            Read-only views of ``coefs_`` and ``intercepts_``.

        Examples
        --------
        >>> from fastnn import MLPRegressor
        >>> MLPRegressor.from_weights([[[2.0]]], [[1.0]]).Theta_
        [array([[1., 2.]])]
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

    def summary(self) -> str:
        """Describe the layers: units, activation functions, parameters, bytes.

        Returns
        -------
        str
            A line for each layer. What is not known before ``fit`` is a question mark: inputs and
            outputs, and whether parameters are float32 or float64.

        Raises
        ------
        ValueError
            If a parameter is not as described.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastnn import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier((20, 10), activation=["relu", "tanh"])
        >>> print(model.partial_fit(X, y, classes=[0, 1, 2]).summary())
        layer     units  activation  parameters  bytes
        input         4
        hidden 1     20  relu               100    800
        hidden 2     10  tanh               210  1,680
        output        3  softmax             33    264
        total                               343  2,744
        """
        return _summary.text(self)

    def _get_params_html(self, *args: Any, **kwargs: Any) -> Any:
        """The table of parameters, which scikit-learn shows in notebooks, below the network."""
        params = super()._get_params_html(*args, **kwargs)
        table = params._html_repr
        params._html_repr = lambda: _summary.as_html(self) + table()
        return params

    def _tasks(
        self,
        settings: Parameters,
        history: History,
        progress: Progress,
        given: tuple[Any, Any, Any],
        incremental: bool,
        fit: Callable[[], Description],
    ) -> Tasks:
        """The fit and its epochs as scikit-learn's callbacks see them."""
        X, y, sample_weight = given
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        by_lbfgs = settings.solver == "lbfgs"

        def publish() -> None:
            for name, value in history.attributes(epochs=not by_lbfgs).items():
                setattr(self, name, value)

        def attributes() -> dict[str, Any]:
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

    def _fitted_copy(self, theta: Array) -> Self:
        """A copy as it would be if training ended with theta."""
        twin = shallow_copy(self)
        for name, value in self._fitted_weights(theta).items():
            object.__setattr__(twin, name, value)  # a subclass may have its own
        return twin

    def _fitted_weights(self, theta: Array) -> dict[str, Any]:
        """A copy of what would be ``coefs_`` and ``intercepts_`` if training ended with theta."""
        units = self._units(self.coefs_, self.intercepts_)
        coefs, intercepts = views(theta.copy(), units)
        self._scaling.fold(coefs, intercepts)
        return {"coefs_": coefs, "intercepts_": intercepts}

    def _network(self, dtype: DTypeLike | None = None) -> tuple[Array, list[int]]:
        """The flat parameters behind ``coefs_``, and the units of each layer, the input first.

        A copy if ``coefs_`` were replaced, or are of another type than ``dtype``. What is returned
        belongs together, whatever other threads do.
        """
        coefs, intercepts = self.coefs_, self.intercepts_
        units = self._units(coefs, intercepts)
        theta = vector_behind(coefs, intercepts)
        if (
            theta is not None
            and theta.dtype in (np.float32, np.float64)
            and (dtype is None or dtype == theta.dtype)  # NumPy's float64 == None
        ):
            return theta, units
        if dtype is None:
            dtype = np.result_type(*coefs, np.float32)
            dtype = np.float32 if dtype == np.float32 else np.float64
        # What was given stays where it is: the user may go on to write into it.
        return flatten(coefs, intercepts, dtype), units

    def _units(self, coefs: list[Array], intercepts: list[Array]) -> list[int]:
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

    def _outputs(self, X: Any) -> Array:
        """Outputs of the network for X, ``(n_samples, n_outputs)``."""
        return self._outputs_of(checked_examples(self, X))

    def _outputs_of(self, X: Matrix) -> Array:
        """Outputs for X that is checked."""
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
        data = make_data(X, continued=self._continued)
        return predict(net, theta, data, np.arange(X.shape[0]), self.n_threads)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # What a version that saved the estimator had not yet.
        if hasattr(self, "coefs_"):
            if (scores := getattr(self, "validation_scores_", None)) is not None:
                unknown = [np.nan] * len(scores)
                self.__dict__.setdefault("validation_loss_curve_", unknown)
            theta, units = self._network()
            kept = self.__dict__
            if kept.get("coefs_") is not None:  # a subclass may keep them elsewhere
                kept["coefs_"], kept["intercepts_"] = views(theta, units)

    def _supports_partial_fit(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
