"""Fitted networks as ONNX, by skl2onnx: ``register`` tells it how.

Registering is a call, not what an import does: it changes a table of skl2onnx for the whole
process, and an import that nothing seems to use would soon be tidied away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from ._activations import check_activations
from ._classifier import MLPClassifier
from ._regressor import MLPRegressor
from ._typing import Activation, Array
from .kernels.activations import (
    ACTIVATIONS,
    EXP,
    GATE,
    IDENTITY,
    LOGISTIC,
    NORMAL_GATE,
    RECTIFIER,
    RELU,
    SOFTMAX,
    SOFTPLUS,
    STEP,
    TANH,
)


def register() -> None:
    """Tell skl2onnx how to convert ``MLPClassifier`` and ``MLPRegressor``, also in a Pipeline.

    Afterwards ``skl2onnx.to_onnx`` and ``skl2onnx.convert_sklearn`` take them. Without it they
    raise an error, as they do for subclasses. A graph of float64 inputs computes in float64, one of
    others in float32; the error function of 'gelu_erf' is in float32 always, as runtimes have it.
    Labels are strings or int64 (bool as 0 and 1), decided by ``threshold`` and ``pos_label``; a
    regressor has a column for each output. Needs skl2onnx (``fastnn-mlp[onnx]``).

    Returns
    -------
    None

    Raises
    ------
    ImportError
        If skl2onnx is not installed.
    """
    try:
        from skl2onnx import update_registered_converter
    except ImportError as error:
        raise ImportError("ONNX needs skl2onnx: `pip install skl2onnx onnxruntime`.") from error
    update_registered_converter(
        MLPClassifier,
        "FastnnMLPClassifier",
        _classifier_shapes,
        _convert_classifier,
        options={
            "zipmap": [True, False, "columns"],
            "nocl": [False],  # skl2onnx asks for it by itself
        },
    )
    update_registered_converter(
        MLPRegressor, "FastnnMLPRegressor", _regressor_shapes, _convert_regressor
    )


class _Graph:
    """Nodes of a graph that computes in one type. Names of intermediate results are its values."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        from onnx import TensorProto
        from skl2onnx.common.data_types import DoubleTensorType

        self._scope, self._container = scope, container
        is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
        self._dtype = np.float64 if is_double else np.float32
        self.type = TensorProto.DOUBLE if is_double else TensorProto.FLOAT
        self.float32, self.int64 = TensorProto.FLOAT, TensorProto.INT64
        self._string = TensorProto.STRING

    def __call__(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add a node; returns the name of its first result, which is ``out`` if that is given."""
        outputs = [out or self._name(op)]
        if op == "TopK":
            outputs.append(self._name("places"))
        name = self._scope.get_unique_operator_name(op)
        self._container.add_node(op, list(inputs), outputs, name=name, **attributes)
        return outputs[0]

    def numbers(self, values: ArrayLike) -> str:
        """Constants of the type in which the graph computes."""
        with np.errstate(over="ignore"):
            array = np.asarray(values).astype(self._dtype)
        if not np.isfinite(array).all():
            raise ValueError(
                f"The network has weights beyond the range of {self._dtype.__name__}: convert it "
                "for inputs of float64, such as by to_onnx(model, X.astype(np.float64))."
            )
        return self._constant(self.type, array)

    def integers(self, values: ArrayLike) -> str:
        return self._constant(self.int64, np.asarray(values, np.int64))

    def strings(self, values: Sequence[str]) -> str:
        return self._constant(self._string, np.array([text.encode() for text in values]))

    def _constant(self, kind: int, array: Array) -> str:
        name = self._name("constant")
        self._container.add_initializer(name, kind, array.shape, array.ravel().tolist())
        return name

    def _name(self, text: str) -> str:
        return self._scope.get_unique_variable_name(text.lower())


def _activate(graph: _Graph, function: Activation, z: str) -> str:
    """Add an activation function, by the definition that kernels have of it."""
    name, k = function if isinstance(function, tuple) else (function, None)
    entry = ACTIVATIONS[name]
    constants = entry.constants if k is None else entry.with_k(float(k))
    operators = {LOGISTIC: "Sigmoid", TANH: "Tanh", RELU: "Relu", EXP: "Exp"}
    if entry.code == IDENTITY:
        return z
    if entry.code in operators:
        return graph(operators[entry.code], z)
    if entry.code == SOFTMAX:
        return graph("Softmax", z, axis=1)
    if entry.code == STEP:
        return graph("Cast", graph("GreaterOrEqual", z, graph.numbers(constants[0])), to=graph.type)
    if entry.code == RECTIFIER:
        p, q, r, _ = (graph.numbers(number) for number in constants)
        zero = graph.numbers(0)
        above, below = graph("Max", z, zero), graph("Min", z, zero)
        a = graph("Add", graph("Mul", above, p), graph("Mul", below, q))
        if constants[2] == 0:
            return a
        return graph("Add", a, graph("Mul", graph("Sub", graph("Exp", below), graph.numbers(1)), r))
    if entry.code == GATE:
        c, d = (graph.numbers(number) for number in constants)
        slope = graph("Add", graph("Mul", graph("Mul", z, z), d), c)
        return graph("Mul", z, graph("Sigmoid", graph("Mul", z, slope)))
    if entry.code == NORMAL_GATE:
        scaled = graph("Mul", z, graph.numbers(math.sqrt(0.5)))
        # onnxruntime has it in float32 alone.
        erf = graph("Cast", graph("Erf", graph("Cast", scaled, to=graph.float32)), to=graph.type)
        half = graph("Mul", z, graph.numbers(0.5))
        return graph("Mul", half, graph("Add", erf, graph.numbers(1)))
    if entry.code == SOFTPLUS:
        small = graph("Exp", graph("Neg", graph("Abs", z)))
        log = graph("Log", graph("Add", small, graph.numbers(1)))
        return graph("Add", graph("Max", z, graph.numbers(0)), log)
    raise NotImplementedError(f"There is no ONNX for the activation {function!r}.")


def _outputs(graph: _Graph, operator: Any) -> str:
    """Add the network; returns the name of its outputs, ``(n, n_outputs)``."""
    model = operator.raw_operator
    functions = check_activations(model.activation, len(model.coefs_) - 1, model.out_activation_)
    a = graph("Cast", operator.inputs[0].full_name, to=graph.type)
    for W, b, function in zip(
        model.coefs_, model.intercepts_, [*functions, model.out_activation_], strict=True
    ):
        z = graph("Add", graph("MatMul", a, graph.numbers(W)), graph.numbers(b))
        a = _activate(graph, function, z)
    return a


def _set_type(operator: Any, place: int, n_columns: int) -> None:
    """Set the type of a result of floats, which is that of the inputs or float32."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    given = operator.inputs[0]
    make = DoubleTensorType if isinstance(given.type, DoubleTensorType) else FloatTensorType
    operator.outputs[place].set_type(make([given.get_first_dimension(), n_columns]))


def _check_inputs(operator: Any) -> None:
    """Raise an error where inputs are not one matrix of numbers, or the model is not fitted."""
    from skl2onnx.common.data_types import (
        BooleanTensorType,
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
    )
    from skl2onnx.common.utils import check_input_and_output_numbers, check_input_and_output_types

    check_is_fitted(operator.raw_operator)
    check_input_and_output_numbers(operator, input_count_range=1)
    numbers = [BooleanTensorType, DoubleTensorType, FloatTensorType, Int64TensorType]
    check_input_and_output_types(operator, good_input_types=numbers)


def _labels(model: MLPClassifier) -> Any:
    """The classes as ONNX has them: int64, or a list of str."""
    classes = model.classes_
    if len(classes) == 1:
        raise ValueError(
            f"A classifier of the one class {classes[0]!r} has two columns of probabilities, which "
            "ONNX cannot name: fit it to two classes."
        )
    if all(isinstance(label, str) for label in classes):
        return [str(label) for label in classes]
    integers = classes.astype(np.int64) if classes.dtype.kind in "biuf" else None
    if integers is None or not np.array_equal(integers, classes):
        raise ValueError(f"Labels in ONNX are strings or integers of 64 bits, not {classes!r}.")
    return integers


def _classifier_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    _check_inputs(operator)
    model = operator.raw_operator
    n_rows = operator.inputs[0].get_first_dimension()
    if model._target_type == "multilabel-indicator":
        operator.outputs[0].set_type(Int64TensorType([n_rows, model.n_outputs_]))
    else:
        make = StringTensorType if isinstance(_labels(model), list) else Int64TensorType
        operator.outputs[0].set_type(make([n_rows]))
    _set_type(operator, 1, max(2, model.n_outputs_))


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    model, graph = operator.raw_operator, _Graph(scope, operator, container)
    label, probability = (variable.full_name for variable in operator.outputs)
    targets = model._targets(model, model.n_outputs_)
    rule = targets.decision_rule()
    a = _outputs(graph, operator)
    if targets.kind == "multilabel":
        graph("Identity", a, out=probability)
        graph("Cast", graph("Greater", a, graph.numbers(rule)), to=graph.int64, out=label)
        return
    if targets.kind == "multiclass":
        graph("Identity", a, out=probability)
        place = graph("ArgMax", a, axis=1, keepdims=0)
    else:
        threshold, of_first = rule
        first = graph("Sub", graph.numbers(1), a)
        graph("Concat", first, a, axis=1, out=probability)
        above = graph("Greater", first if of_first else a, graph.numbers(threshold))
        place = graph("Cast", graph("Not", above) if of_first else above, to=graph.int64)
        place = graph("Reshape", place, graph.integers([-1]))
    labels = _labels(model)
    constant = graph.strings if isinstance(labels[0], str) else graph.integers
    graph("Gather", constant(labels), place, axis=0, out=label)


def _regressor_shapes(operator: Any) -> None:
    _check_inputs(operator)
    _set_type(operator, 0, operator.raw_operator.n_outputs_)


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    model, graph = operator.raw_operator, _Graph(scope, operator, container)
    n_quantiles = model._targets(model, model.n_outputs_).n_quantiles
    a, prediction = _outputs(graph, operator), operator.outputs[0].full_name
    if n_quantiles == 1:
        graph("Identity", a, out=prediction)
        return
    # Quantiles of each target in ascending order, as predict has them.
    shape = graph.integers([-1, model.n_outputs_ // n_quantiles, n_quantiles])
    number = graph.integers([n_quantiles])
    a = graph("TopK", graph("Reshape", a, shape), number, axis=2, largest=0, sorted=1)
    graph("Reshape", a, graph.integers([-1, model.n_outputs_]), out=prediction)
