"""Whatever is combined: a fit ends with finite weights or with an error that says what is wrong."""

import warnings

import numpy as np
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes, load_iris

from fastnn import MLPClassifier, MLPRegressor

IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
TRAINABLE = [
    "identity",
    "logistic",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "gelu_erf",
    "silu",
    "softplus",
    ("linear", 0.5),
    ("elu", 0.3),
]
LIMITS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def common(draw):
    """Parameters of both estimators."""
    hidden = draw(st.lists(st.integers(1, 9), max_size=3))
    one = st.sampled_from(TRAINABLE)
    each = st.lists(one, min_size=len(hidden), max_size=len(hidden))
    solver = draw(st.sampled_from(["adam", "adamw", "nadam", "rmsprop", "adagrad", "sgd", "lbfgs"]))
    early_stopping = draw(st.booleans())
    return {
        "hidden_layer_sizes": tuple(hidden),
        "activation": draw(st.one_of(one, each)),
        "solver": solver,
        "alpha": draw(st.sampled_from([0, 1e-4, 1.0])),
        "batch_size": draw(st.sampled_from(["auto", "full", 1, 7, 64, 149])),
        "learning_rate": draw(
            st.sampled_from(["constant", "adaptive", "invscaling", "cosine", "one_cycle", "step"])
        ),
        "learning_rate_init": draw(st.sampled_from([1e-4, 1e-3, 0.05])),
        "dropout": 0.0 if solver == "lbfgs" else draw(st.sampled_from([0.0, 0.2, 0.9])),
        "clip_norm": draw(st.sampled_from([None, 0.1])),
        "init": draw(st.sampled_from(["glorot", "he", "notes"])),
        "standardize": draw(st.booleans()),
        "early_stopping": early_stopping,
        "scoring": draw(st.sampled_from([None, "loss"])),
        "weight_average": None if early_stopping else draw(st.sampled_from([None, 2, 0.5])),
        "n_threads": draw(st.sampled_from([None, 1, 2, 3])),
        "max_iter": draw(st.integers(1, 4)),
        "random_state": draw(st.integers(0, 3)),
    }


def check(model, X, y, container, dtype, weighted):
    X = X.astype(dtype)
    weight = np.linspace(0, 2, len(X)) if weighted else None
    before = X.copy(), y.copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(container(X), y, sample_weight=weight)
    except ValueError as error:  # training may diverge, but not in silence
        assert "non-finite" in str(error)
        return
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    for array in [*model.coefs_, *model.intercepts_]:
        assert array.dtype == dtype
        assert np.isfinite(array).all()
    assert np.isfinite(model.loss_)
    prediction = model.predict(container(X))
    assert len(prediction) == len(y)
    np.testing.assert_array_equal(prediction, model.predict(container(X)))


containers = st.sampled_from([np.asarray, np.asfortranarray, sp.csr_array, sp.csc_matrix])
dtypes = st.sampled_from([np.float32, np.float64])


@LIMITS
@given(
    common(),
    st.sampled_from(["log_loss", "squared_error"]),
    st.sampled_from([None, "balanced", {0: 2.0}]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([2, 3]),
    containers,
    dtypes,
    st.booleans(),
)
def test_classifiers(
    parameters, loss, class_weight, smoothing, n_classes, container, dtype, weighted
):
    X, y = IRIS
    X, y = X[y < n_classes], y[y < n_classes]
    if loss == "squared_error":
        smoothing = 0.0
    model = MLPClassifier(
        **parameters, loss=loss, class_weight=class_weight, label_smoothing=smoothing
    )
    check(model, X, y, container, dtype, weighted)


@LIMITS
@given(
    common(),
    st.sampled_from(
        ["squared_error", "rss", "absolute_error", "huber", "quantile", "poisson", "gamma"]
    ),
    st.sampled_from([0.3, [0.1, 0.5, 0.9]]),
    st.booleans(),
    st.sampled_from([1, 2]),
    containers,
    dtypes,
    st.booleans(),
)
def test_regressors(parameters, loss, quantile, standardize, n_outputs, container, dtype, weighted):
    X, y = DIABETES
    y = y / 100
    if n_outputs == 2:
        y = np.column_stack((y, y**2))
    if loss in ("poisson", "gamma"):
        standardize = False
    quantile = quantile if loss == "quantile" else 0.5
    model = MLPRegressor(loss, **parameters, quantile=quantile, standardize_target=standardize)
    check(model, X[:150], y[:150], container, dtype, weighted)
