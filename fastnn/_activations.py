"""What the user may say about activation functions, in the form that make_net takes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from ._typing import Activation
from .kernels.activations import ACTIVATIONS

HIDDEN_ACTIVATIONS = [name for name, entry in ACTIVATIONS.items() if entry.hidden]
OUT_ACTIVATIONS = [name for name, entry in ACTIVATIONS.items() if entry.output]


def check_activations(
    activation: Activation | Sequence[Activation],
    n_hidden: int,
    out_activation: Activation,
    fitting: bool = False,
) -> list[Activation]:
    """The activation function of each hidden layer, in a list.

    Raises
    ------
    ValueError
        If a name or a constant is not allowed, the number of functions is not that of the hidden
        layers, or ``fitting`` a step function.
    """
    is_pair = isinstance(activation, tuple) and len(activation) == 2
    if isinstance(activation, str) or (is_pair and isinstance(activation[1], Real)):
        functions: list[Any] = [activation] * n_hidden
    else:
        functions = list(activation)
        if len(functions) != n_hidden:
            raise ValueError(
                f"activation must be one function or a list with one for each of the {n_hidden} "
                f"hidden layers, got {activation!r}."
            )
    for function in functions:
        _check(function, "activation", HIDDEN_ACTIVATIONS, fitting)
    _check(out_activation, "out_activation", OUT_ACTIVATIONS, fitting)
    return functions


def _check(function: Activation, parameter: str, allowed: list[str], fitting: bool) -> None:
    name, k = function if isinstance(function, tuple) and len(function) == 2 else (function, None)
    if not isinstance(name, str) or name not in allowed:
        raise ValueError(f"{parameter} must be one of {sorted(allowed)}, got {function!r}.")
    if k is not None and (not isinstance(k, Real) or ACTIVATIONS[name].with_k is None):
        with_k = sorted(name for name in allowed if ACTIVATIONS[name].with_k)
        raise ValueError(
            f"{parameter}: a constant k is a number, for one of {with_k}, got {function!r}."
        )
    if fitting and name == "step":
        raise ValueError(
            f"{parameter}={function!r} cannot be trained: the derivative of a step is zero almost "
            "everywhere, so that no error comes through to any weight. Give the weights with "
            "from_weights, or train with 'logistic' and decide by a threshold."
        )
