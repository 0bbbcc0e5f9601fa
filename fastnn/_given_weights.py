"""Weights that the user gives: to start from (``init``) or to have at once (``from_weights``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier

from ._activations import check_activations
from ._inputs import hidden_units
from ._targets import checked_quantiles
from ._typing import Array, Estimator, Weights
from .kernels.layout import flatten, shapes_of, views


def with_weights(
    make: type[Estimator],
    params: dict[str, Any],
    coefs: Weights,
    intercepts: Weights,
    classes: ArrayLike | None = None,
) -> Estimator:
    """``make(**params)`` as if a fit had ended with these weights; see ``from_weights``."""
    checked = _checked(coefs, intercepts)
    units = [len(checked[0][0]), *map(len, checked[1])]
    hidden = tuple(units[1:-1])
    estimator: Any = make(**params)  # of either class
    if "hidden_layer_sizes" in set(estimator.get_params(deep=False)) - set(params):
        estimator.hidden_layer_sizes = hidden  # of a subclass, its parameters may fix them
    estimator._validate_params()
    sizes = tuple(hidden_units(estimator.hidden_layer_sizes))
    if sizes != hidden:
        raise ValueError(f"hidden_layer_sizes={sizes} differs from the {hidden} units of coefs.")
    if is_classifier(estimator):
        _learn_classes(estimator, units[-1], classes)
    elif estimator.loss == "quantile":
        estimator._quantiles = checked_quantiles(estimator.quantile)
        if units[-1] % len(estimator._quantiles) != 0:
            raise ValueError(
                f"quantile={estimator.quantile!r} needs an output for each quantile of each "
                f"target, but coefs[-1] has {units[-1]} columns."
            )
    out_activation = estimator.out_activation
    if out_activation is None or "step" not in (out_activation, out_activation[0]):
        out_activation = estimator._targets(estimator, units[-1]).network()["out_activation"]
    check_activations(estimator.activation, len(hidden), out_activation)
    single = all(array.dtype == np.float32 for arrays in checked for array in arrays)
    theta = flatten(*checked, np.float32 if single else np.float64)
    estimator.coefs_, estimator.intercepts_ = views(theta, units)
    estimator.n_iter_ = estimator.t_ = 0
    estimator.n_layers_ = len(units)
    estimator.n_outputs_ = units[-1]
    estimator.n_features_in_ = units[0]
    estimator.out_activation_ = out_activation
    return estimator


def _checked(given_coefs: Weights, given_intercepts: Weights) -> tuple[list[Array], list[Array]]:
    """Both as lists of arrays whose shapes follow on from each other."""
    coefs = [np.asarray(W) for W in given_coefs]
    intercepts = [np.asarray(b) for b in given_intercepts]
    if len(coefs) != len(intercepts) or not coefs:
        raise ValueError(
            "coefs and intercepts must have one array for each layer, at least one: got "
            f"{len(coefs)} and {len(intercepts)}."
        )
    for l, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
        if W.ndim != 2 or 0 in W.shape:
            raise ValueError(f"coefs[{l}] must have shape (n_in, n_out), got {W.shape}.")
        if l > 0 and len(W) != coefs[l - 1].shape[1]:
            raise ValueError(
                f"coefs[{l}] has shape {W.shape}, but must have {coefs[l - 1].shape[1]} rows: "
                f"coefs[{l - 1}] has shape {coefs[l - 1].shape}."
            )
        if b.shape != (W.shape[1],):
            raise ValueError(
                f"intercepts[{l}] has shape {b.shape}, but must have {(W.shape[1],)}: "
                f"coefs[{l}] has shape {W.shape}."
            )
        for name, array in (("coefs", W), ("intercepts", b)):
            if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
                raise ValueError(f"{name}[{l}] must be finite real numbers.")
    return coefs, intercepts


def _learn_classes(estimator: Any, n_outputs: int, classes: ArrayLike | None) -> None:
    """Set what an earlier fit would have learnt of y."""
    softmax = estimator.out_activation in (None, "softmax")
    if n_outputs == 1:
        kind, target_type, n_classes = "binary", "binary", 2
    elif softmax or classes is not None:
        kind, target_type, n_classes = "multiclass", "multiclass", n_outputs
    else:
        kind, target_type, n_classes = "multilabel", "multilabel-indicator", n_outputs
    if kind == "multiclass" and n_outputs == 2:
        raise ValueError(
            "A classifier of two classes has one output, the probability of the second, but "
            "coefs[-1] has 2 columns. Of a softmax, subtract the first column from the second."
        )
    classes = np.arange(n_classes) if classes is None else np.asarray(classes)
    if classes.shape != (n_classes,) or not np.array_equal(classes, np.unique(classes)):
        raise ValueError(
            f"classes must be {n_classes} labels in ascending order for {n_outputs} outputs, got "
            f"{classes!r}."
        )
    estimator.classes_, estimator._target_type = classes, target_type


def checked_init(
    init: tuple[Weights, Weights], units: Sequence[int]
) -> tuple[list[Array], list[Array]]:
    """Check ``init=(coefs, intercepts)`` for layers of the sizes ``units``."""
    try:
        coefs, intercepts = ([np.asarray(a, np.float64) for a in arrays] for arrays in init)
    except (TypeError, ValueError):
        raise ValueError(
            "init must be 'glorot', 'he', 'notes' or (coefs, intercepts), two lists of arrays of "
            f"real numbers; got {init!r:.200}."
        ) from None
    came = [a.shape for a in coefs], [a.shape for a in intercepts]
    expected = shapes_of(units)
    if came != expected:
        raise ValueError(
            f"init has coefs of shapes {came[0]} and intercepts of shapes {came[1]}; expected are "
            f"{expected[0]} and {expected[1]} for {units[0]} features, hidden layers of "
            f"{units[1:-1]} and {units[-1]} outputs."
        )
    if not all(np.isfinite(a).all() for a in [*coefs, *intercepts]):
        raise ValueError("init contains NaN or infinity; expected are finite weights.")
    return coefs, intercepts
