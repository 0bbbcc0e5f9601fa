"""What users write, for type checkers: tests/test_packaging.py has mypy read it. It is not run."""

from collections.abc import Callable
from typing import Any, assert_type

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped]
from numpy.typing import NDArray

from fastnn import (
    LossCurveDisplay,
    MLPClassifier,
    MLPRegressor,
    Network,
    backpropagation,
    d2_quantile_score,
    warmup,
)

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

MLPClassifier(alpha="much")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
MLPClassifier(layers=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
