"""What users write, for type checkers: tests/test_packaging.py has them read it. It is not run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import dask.array
import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped]
from numpy.typing import NDArray

import fastnn.dask
import fastnn.onnx
from fastnn import (
    LossCurveDisplay,
    MLPClassifier,
    MLPRegressor,
    Network,
    Stream,
    TabularClassifier,
    TabularRegressor,
    backpropagation,
    d2_quantile_score,
    from_sklearn,
    skops_types,
    to_sklearn,
    warmup,
)
from fastnn.callbacks import Checkpoint, History, ReduceOnPlateau

X: NDArray[np.float32] = np.zeros((10, 2), np.float32)
y = [0, 1] * 5


def rate(epoch: int) -> float:
    return 0.1 / (epoch + 1)


classifier = MLPClassifier(
    (10, 5),
    ["relu", ("leaky_relu", 0.1)],
    learning_rate=rate,
    n_iter_no_change=float("inf"),
    class_weight={0: 1.0, 1: 2.0},
    dropout=[0.1, 0.2],
    random_state=np.random.RandomState(0),
)
assert_type(classifier, MLPClassifier)
assert_type(classifier.fit(X, y), MLPClassifier)
assert_type(classifier.fit(sp.csr_array(X), y, X_val=X, y_val=y), MLPClassifier)
assert_type(classifier.partial_fit(X, y, classes=[0, 1]), MLPClassifier)
assert_type(classifier.predict(X), NDArray[Any])
assert_type(classifier.predict_proba(X.tolist()), NDArray[Any])
assert_type(classifier.predict_log_proba(X), NDArray[Any])
assert_type(classifier.coefs_, list[NDArray[Any]])
assert_type(classifier.Theta_, list[NDArray[Any]])
assert_type(classifier.classes_, NDArray[Any])
assert_type(classifier.loss_curve_, list[float])
assert_type(classifier.best_epoch_, int | None)
assert_type(classifier.alpha, float)
learning_rate: str | Callable[[int], float] = classifier.learning_rate

regressor = MLPRegressor("quantile", 10, quantile=[0.1, 0.9], init=([X], [X[0]]))
assert_type(regressor.fit(X, y).predict(X), NDArray[Any])
assert_type(regressor.partial_fit(X, y, np.ones(10)), MLPRegressor)
assert_type(regressor.score(X, y), float)
assert_type(MLPRegressor.from_weights([[[2.0]]], [[1.0]], activation="tanh"), MLPRegressor)

result = backpropagation(Network([X], ["logistic"], quantile=0.1), X, y, average=True)
gradient: list[NDArray[Any]] = result.dC_dTheta
print(gradient[0].shape, result.z[1].shape)
assert_type(backpropagation(regressor, X, None).a, list[NDArray[Any]])
assert_type(d2_quantile_score(y, X, quantiles=[0.1, 0.9], sample_weight=y), float)
assert_type(warmup(["float32"]), dict[str, bool])
assert_type(LossCurveDisplay.from_estimator(classifier, log=True), LossCurveDisplay)
assert_type(LossCurveDisplay.from_estimators({"a": classifier}), LossCurveDisplay)

assert_type(classifier.summary(), str)
assert_type(MLPRegressor.from_weights([X], [X[0]], alpha=0).summary(), str)

table = [["red", 1.0], ["blue", None], [None, 2.0]]
tabular = TabularClassifier(3, class_weight={"no": 2.0}, max_time=60, verbose="progress")
assert_type(tabular.fit(table, ["no", "yes", "no"], X_val=X, y_val=y), TabularClassifier)
assert_type(tabular.predict(table), NDArray[Any])
assert_type(tabular.predict_proba(X), NDArray[Any])
assert_type(tabular.predict_log_proba(X), NDArray[Any])
assert_type(tabular.members_, list[MLPClassifier])
assert_type(tabular.temperature_, float)
assert_type(tabular.classes_, NDArray[Any])
assert_type(tabular.numerical_embedding, str | None)
forecast = TabularRegressor(hidden_layer_sizes=[64, 64], random_state=0).fit(X, y, np.ones(10))
assert_type(forecast, TabularRegressor)
assert_type(forecast.predict(X), NDArray[Any])
assert_type(forecast.predict(X, return_std=True), tuple[NDArray[Any], NDArray[Any]])
assert_type(forecast.members_[0].best_epoch_, int | None)


def batches() -> Iterator[tuple[NDArray[np.float32], list[int]]]:
    yield X, y


stream = Stream(batches, buffer_rows=1_000)
assert_type(classifier.fit(stream, X_val=stream), MLPClassifier)
assert_type(next(stream.map(classifier.predict)), NDArray[Any])
assert_type(list(Stream([(X, y, [1.0] * 10)]).map(len)), list[int])
assert_type(Stream(Path("folder"), target=["a", "b"], weight="w").buffer_rows, int)

checkpoint = Checkpoint(Path("model"), every=5)
history = History()
assert_type(history.epochs, list[dict[str, float]])
classifier.set_callbacks(checkpoint, history, ReduceOnPlateau(factor=0.1, patience=3))
tabular.set_callbacks(history)

to_sklearn(classifier, solver="adam", dropout=0.0)
from_sklearn(to_sklearn(regressor)).predict(X)
assert_type(skops_types(), list[str])
fastnn.onnx.register()


def on_dask(X: dask.array.Array, y: dask.array.Array) -> None:
    remote = fastnn.dask.MLPClassifier(solver="lbfgs")
    assert_type(
        remote.fit(X, y, X_val=np.ones((10, 2)), y_val=[0, 1] * 5), fastnn.dask.MLPClassifier
    )
    assert_type(remote.to_local(), MLPClassifier)
    assert_type(remote.predict_proba([[1.0, 2.0]]), NDArray[Any])
    assert_type(remote.score(X, y), float)
    remote.predict(X).compute()
    assert_type(fastnn.dask.MLPRegressor(quantile=0.9).fit(X, y).to_local(), MLPRegressor)


MLPClassifier(alpha="much")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
MLPClassifier(layers=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
TabularClassifier(n_members="five")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Stream(batches, buffer_rows="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
to_sklearn(X)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
