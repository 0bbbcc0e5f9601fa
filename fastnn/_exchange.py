"""Networks of scikit-learn's own classes, there and back, and the types that skops has to trust."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import scipy.sparse as sp
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from ._activations import check_activations
from ._averaging import WeightAverage
from ._base import BaseMLP
from ._classifier import MLPClassifier
from ._frames import FrameEncoder
from ._loops import Progress
from ._monitor import History
from ._optimizer import Optimizer
from ._regressor import MLPRegressor
from ._standardize import Standardization
from ._tabular import TabularClassifier, TabularRegressor
from ._typing import Array, Parameters
from .kernels.layout import flatten, views
from .kernels.rules import ADAM, NESTEROV, SGD

if TYPE_CHECKING:
    from sklearn import neural_network

# Parameters that scikit-learn has not, and need not have: they are for speed, have done their work,
# are in the weights or the output activation, or belong to a loss or solver that is refused itself.
_NOT_NEEDED = {
    "n_threads",
    "init",
    "standardize",
    "standardize_target",
    "out_activation",
    "weight_decay",
    "quantile",
    "huber_delta",
    "threshold",
    "pos_label",
}
# What the network predicts by, so that nothing else can take its place.
_PREDICTS = {"activation", "hidden_layer_sizes", "out_activation", "threshold", "pos_label"}
_LEARNT = "n_features_in_", "feature_names_in_", "n_layers_", "n_outputs_", "out_activation_"
_HISTORY = [name for name in History.ATTRIBUTES.values() if name[0] != "_"]


@overload
def to_sklearn(model: MLPClassifier, **params: Any) -> neural_network.MLPClassifier: ...
@overload
def to_sklearn(model: MLPRegressor, **params: Any) -> neural_network.MLPRegressor: ...
def to_sklearn(model: BaseMLP, **params: Any) -> Any:
    """Make the same fitted network as an estimator of scikit-learn's own class.

    It predicts the same, to rounding, and ``partial_fit`` goes on with the state of the optimizer.
    Standardised features and targets are part of the weights; the optimizer, whose state is of
    what it has seen in their place, then begins anew.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        A fitted estimator, or one of a subclass.
    **params : parameters of the model
        What to take in place of the model's own where it is for training alone, such as
        ``solver='adam', dropout=0`` for a network that was trained in a way that scikit-learn does
        not know.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        Its arrays are copies.

    Raises
    ------
    ValueError
        If scikit-learn's class cannot hold the network, or a parameter; all of them are named.
    TypeError
        If the model is not one of fastnn, or a parameter cannot be replaced.
    NotFittedError
        If the model is not fitted.

    Examples
    --------
    >>> from fastnn import MLPRegressor, to_sklearn
    >>> line = MLPRegressor.from_weights([[[2.0]]], [[1.0]])
    >>> to_sklearn(line).predict([[3.0]])
    array([7.])
    """
    from sklearn import neural_network  # by those alone who need it: it takes 10 ms

    if not isinstance(model, BaseMLP):
        raise TypeError(f"model must be an estimator of fastnn, got {type(model).__name__}.")
    check_is_fitted(model)
    make = neural_network.MLPClassifier if is_classifier(model) else neural_network.MLPRegressor
    settings = model._settings()
    others = params.keys() - (vars(settings).keys() - _PREDICTS)
    if others:
        raise TypeError(
            f"{sorted(others)} cannot be replaced: only parameters of {type(model).__name__} that "
            "are for training alone can."
        )
    vars(settings).update(params)
    theta, units = model._network()
    settings.hidden_layer_sizes = tuple(units[1:-1])
    functions = check_activations(settings.activation, len(units) - 2, model.out_activation_)
    if len(set(functions)) == 1:  # a list of the same for all layers
        settings.activation = functions[0]
    if settings.verbose == "progress":
        settings.verbose = True
    shared = make().get_params()
    _check_holds(model, settings, make, shared)
    other = make(**{name: copy.deepcopy(getattr(settings, name)) for name in shared})
    for name in _LEARNT:
        if hasattr(model, name):
            setattr(other, name, getattr(model, name))
    other.coefs_, other.intercepts_ = views(theta.copy(), units)
    # As in a fit that has not begun, where the model has nothing to say.
    other._best_coefs, other._best_intercepts = views(theta.copy(), units)
    other.n_iter_ = other.t_ = other._no_improvement_count = 0
    other.loss_curve_, other.best_loss_ = [], None if settings.early_stopping else np.inf
    other.validation_scores_ = [] if settings.early_stopping else None
    other.best_validation_score_ = -np.inf if settings.early_stopping else None
    for name in (*_HISTORY, "_no_improvement_count"):
        value = getattr(model, name, None)
        if value is not None:
            setattr(other, name, list(value) if isinstance(value, list) else value)
    if is_classifier(model):
        other.classes_ = model.classes_
        other._label_binarizer = _label_binarizer(model)
    optimizer = getattr(model, "_optimizer", None)
    if optimizer is not None and optimizer.is_of(settings) and not _is_standardized(model):
        other._optimizer = _sklearns_optimizer(optimizer, settings, units, theta)
    return other


def _check_holds(model: Any, settings: Any, make: Any, shared: dict[str, Any]) -> None:
    """Raise ValueError for all that an estimator of ``make`` cannot hold."""
    lacking, own = [], model._own_parameters()
    for name, value in vars(settings).items():
        if name in shared:
            try:
                validate_parameter_constraints(
                    make._parameter_constraints, {name: value}, make.__name__
                )
            except InvalidParameterError:
                lacking.append((name, value))
        elif name not in _NOT_NEEDED and np.any(np.asarray(value, object) != own[name]):
            lacking.append((name, value))
    if is_classifier(model):
        multiclass = model._target_type != "multilabel-indicator" and len(model.classes_) > 2
        out_activation = "softmax" if multiclass else "logistic"
        rule = model._targets(settings, model.n_outputs_).decision_rule()
        thresholds, of_first = rule if isinstance(rule, tuple) else (rule, False)
        if np.any(np.not_equal(thresholds, 0.5)):
            lacking.append(("threshold", settings.threshold))
        if of_first:  # differs where both are equally probable
            lacking.append(("pos_label", settings.pos_label))
    else:
        out_activation = "exp" if settings.loss == "poisson" else "identity"
    if model.out_activation_ != out_activation:
        lacking.append(("out_activation", model.out_activation_))
    if lacking:
        said = ", ".join(f"{name}={value!r}" for name, value in lacking)
        of_training = [f"{name}=..." for name, _ in lacking if name not in _PREDICTS]
        way_out = (
            " For training alone, give what it should have in their place: "
            f"to_sklearn(model, {', '.join(of_training)})."
        )
        raise ValueError(
            f"scikit-learn's {make.__name__} cannot hold {said}."
            + (way_out if len(of_training) == len(lacking) else "")
        )


def _label_binarizer(model: MLPClassifier) -> LabelBinarizer:
    """A fitted ``LabelBinarizer``, by which scikit-learn knows the kind of target."""
    if model._target_type != "multilabel-indicator":
        return LabelBinarizer().fit(model.classes_)
    labels = np.zeros((2, model.n_outputs_), int)
    return LabelBinarizer().fit(sp.csr_array(labels) if model._labels_are_sparse else labels)


def _is_standardized(model: BaseMLP) -> bool:
    scaling = getattr(model, "_scaling", None)
    return scaling is not None and not (scaling.features is None and scaling.targets is None)


def _sklearns_optimizer(
    optimizer: Optimizer, settings: Parameters, units: Sequence[int], theta: Array
) -> Any:
    """scikit-learn's optimizer with the state of ours."""
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

    def as_params(vector: Array) -> list[Array]:
        coefs, intercepts = views(vector, units)
        return coefs + intercepts

    params = as_params(theta)
    slots = [as_params(slot) for slot in optimizer.state.astype(theta.dtype)]
    if optimizer.code == ADAM:
        other = AdamOptimizer(
            params,
            settings.learning_rate_init,
            settings.beta_1,
            settings.beta_2,
            settings.epsilon,
        )
        other.t, (other.ms, other.vs) = optimizer.t, slots
        return other
    other = SGDOptimizer(
        params,
        settings.learning_rate_init,
        settings.learning_rate,
        settings.momentum,
        settings.nesterovs_momentum,
        settings.power_t,
    )
    other.learning_rate, (other.velocities,) = optimizer.learning_rate, slots
    return other


@overload
def from_sklearn(model: neural_network.MLPClassifier) -> MLPClassifier: ...
@overload
def from_sklearn(  # type: ignore[overload-cannot-match]  # but where scikit-learn has types
    model: neural_network.MLPRegressor,
) -> MLPRegressor: ...
def from_sklearn(model: Any) -> MLPClassifier | MLPRegressor:
    """Make the same fitted network as a fastnn estimator, from one of scikit-learn's own class.

    It predicts the same, to rounding, and ``partial_fit`` goes on with the state of the optimizer.

    Parameters
    ----------
    model : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        A fitted estimator, or one of a subclass.

    Returns
    -------
    MLPClassifier or MLPRegressor
        Its arrays are copies.

    Raises
    ------
    TypeError
        If the model is not one of these.
    NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> import sklearn.neural_network
    >>> from fastnn import from_sklearn
    >>> X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    >>> slow = sklearn.neural_network.MLPClassifier((5,), solver="lbfgs", random_state=0).fit(X, y)
    >>> bool((from_sklearn(slow).predict(X) == slow.predict(X)).all())
    True
    """
    from sklearn import neural_network  # by those alone who need it: it takes 10 ms
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

    if isinstance(model, neural_network.MLPClassifier):
        make, estimator = neural_network.MLPClassifier, MLPClassifier()
    elif isinstance(model, neural_network.MLPRegressor):
        make, estimator = neural_network.MLPRegressor, MLPRegressor()
    else:
        raise TypeError(
            "model must be an MLPClassifier or MLPRegressor of sklearn.neural_network, got "
            f"{type(model).__name__}."
        )
    check_is_fitted(model, "coefs_")
    optimizer = getattr(model, "_optimizer", None)
    binarizer = getattr(model, "_label_binarizer", None)
    for name in make().get_params():
        setattr(estimator, name, copy.deepcopy(getattr(model, name)))
    dtype = np.result_type(*model.coefs_, *model.intercepts_, np.float32)
    theta = flatten(model.coefs_, model.intercepts_, dtype)
    units = [len(model.coefs_[0]), *map(len, model.intercepts_)]
    estimator.hidden_layer_sizes = tuple(units[1:-1])
    estimator.coefs_, estimator.intercepts_ = views(theta, units)
    for name in _LEARNT:
        if hasattr(model, name):
            setattr(estimator, name, getattr(model, name))
    if binarizer is not None:
        estimator.classes_ = model.classes_
        estimator._target_type = binarizer.y_type_
        estimator._labels_are_sparse = binarizer.sparse_input_
    for name, value in _history(model).items():
        setattr(estimator, name, value)
    if isinstance(optimizer, (AdamOptimizer, SGDOptimizer)):
        estimator._optimizer = _own_optimizer(optimizer, estimator, theta)
    return estimator


def _history(model: Any) -> dict[str, Any]:
    """What scikit-learn's estimator has to say of its training, as ours has it."""
    fields = {
        field: copy.copy(getattr(model, name))
        for field, name in History.ATTRIBUTES.items()
        if hasattr(model, name)
    }
    if fields.get("validation_scores") is not None:
        fields["validation_loss_curve"] = [np.nan] * len(fields["validation_scores"])
    history = History(**fields)
    shown = history.attributes(epochs="loss_curve" in fields)
    del shown["stop_reason_"]  # which it does not keep
    return shown | {"t_": history.t}


def _own_optimizer(other: Any, settings: BaseMLP, theta: Array) -> Optimizer:
    """Our optimizer with the state of scikit-learn's."""
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

    optimizer = Optimizer(settings, theta.size, theta.dtype)
    slots: tuple[Any, ...]
    schedule: Any = settings.learning_rate
    if isinstance(other, AdamOptimizer):
        optimizer.code, optimizer.t, slots = ADAM, other.t, (other.ms, other.vs)
        optimizer.learning_rate = float(other.learning_rate_init)
    else:
        optimizer.code, slots = NESTEROV if other.nesterov else SGD, (other.velocities,)
        optimizer.learning_rate, schedule = float(other.learning_rate), other.lr_schedule
    optimizer.given_rate = schedule, float(other.learning_rate_init)
    n = len(settings.coefs_)
    optimizer.state = np.stack([flatten(slot[:n], slot[n:], theta.dtype) for slot in slots])
    return optimizer


def skops_types() -> list[str]:
    """Name the types that skops has to trust to load what fastnn has saved.

    Returns
    -------
    list of str
        The estimators, and what they keep to go on with: all that a saved estimator of fastnn
        holds, also a checkpoint, but for functions and estimators of your own.

    Examples
    --------
    >>> import fastnn
    >>> import skops.io
    >>> model = fastnn.MLPRegressor.from_weights([[[2.0]]], [[1.0]])
    >>> saved = skops.io.dumps(model)
    >>> skops.io.loads(saved, trusted=fastnn.skops_types()).predict([[3.0]])
    array([7.])
    """
    estimators = MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor
    types = *estimators, FrameEncoder, Optimizer, Standardization, Progress, WeightAverage
    return [f"{each.__module__}.{each.__qualname__}" for each in types]
