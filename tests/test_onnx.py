"""Networks as ONNX compute the same in onnxruntime, or are an error."""

import itertools
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import fastnn.onnx
from fastnn import MLPClassifier, MLPRegressor
from fastnn._activations import HIDDEN_ACTIVATIONS, OUT_ACTIVATIONS

runtime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300], Y[:300]
LABELS = (np.arange(300)[:, None] * [3, 5, 7] % 4 < 2).astype(int)
NAMES = np.array(["zéro", "one", "two", "three", "four", "five", "six", "seven", "8", "9"])
SETTINGS = dict(hidden_layer_sizes=(12, 7), max_iter=4, random_state=0, standardize=True)
DTYPES = [np.float32, np.float64]

deviations = {}


@pytest.fixture(scope="module", autouse=True)
def registered():
    fastnn.onnx.register()
    yield
    print(f"\n\n{'model':42}  runtime      dtype    largest deviation")
    for (name, dtype), deviation in deviations.items():
        print(f"{name:42}  onnxruntime  {dtype:7}  {deviation:.1e}")


def converted(model, X, **options):
    if hasattr(model, "classes_"):
        options = {"zipmap": False, **options}
    return skl2onnx.to_onnx(model, X[:1], options=options or None)


def run(graph, X):
    session = runtime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: X})


def check(name, model, X):
    """The graph gives the model's predictions, and its probabilities to 1e-5."""
    results = run(converted(model, X), X)
    if hasattr(model, "classes_"):
        label, outputs = results
        prediction, expected = model.predict(X), model.predict_proba(X)
        prediction = prediction.toarray() if sp.issparse(prediction) else prediction
        np.testing.assert_array_equal(label, prediction)
        assert label.dtype == (object if prediction.dtype.kind in "UO" else np.int64)
    else:
        (outputs,) = results
        expected = model.predict(X).reshape(len(X), -1)
    assert outputs.dtype == X.dtype
    assert outputs.shape == expected.shape
    deviation = np.abs(outputs - expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    deviations[name, X.dtype.name] = deviation


SCALED = X[:, 20:23] / 16
MODELS = {
    "classes": (MLPClassifier(**SETTINGS), Y),
    "classes, large integers": (MLPClassifier(**SETTINGS), Y * 10**12 - 5),
    "classes, unsigned": (MLPClassifier(**SETTINGS), Y.astype(np.uint8)),
    "classes, integral float": (MLPClassifier(**SETTINGS), Y * 2.0),
    "classes, str": (MLPClassifier(**SETTINGS), NAMES[Y]),
    "classes, str objects": (MLPClassifier(**SETTINGS), NAMES[Y].astype(object)),
    "classes, squared error": (MLPClassifier(**SETTINGS, loss="squared_error"), Y),
    "classes, tanh outputs": (
        MLPClassifier(**SETTINGS, loss="squared_error", out_activation="tanh"),
        Y,
    ),
    "two classes, bool": (MLPClassifier(**SETTINGS), Y > 4),
    "two classes, str": (MLPClassifier(**SETTINGS), NAMES[Y % 2]),
    "two classes, threshold": (MLPClassifier(**SETTINGS, threshold=0.2), Y > 4),
    "two classes, threshold, first": (
        MLPClassifier(**SETTINGS, threshold=0.8, pos_label="one"),
        NAMES[Y % 2],
    ),
    "labels": (MLPClassifier(**SETTINGS), LABELS),
    "labels, sparse": (MLPClassifier(**SETTINGS), sp.csr_matrix(LABELS)),
    "labels, thresholds": (MLPClassifier(**SETTINGS, threshold=[0.3, 0.5, 0.6]), LABELS),
    "one output": (MLPRegressor(**SETTINGS), SCALED[:, 0]),
    "outputs": (MLPRegressor(**SETTINGS, standardize_target=True), SCALED),
    "quantile": (MLPRegressor(**SETTINGS, loss="quantile", quantile=0.9), SCALED),
    "sorted quantiles": (
        MLPRegressor(**SETTINGS, loss="quantile", quantile=[0.1, 0.5, 0.9]),
        SCALED,
    ),
    "poisson": (MLPRegressor(**SETTINGS, loss="poisson"), SCALED),
    "no hidden layer": (MLPRegressor(**{**SETTINGS, "hidden_layer_sizes": ()}), SCALED),
    "by lbfgs": (MLPRegressor(**SETTINGS, solver="lbfgs"), SCALED),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MODELS)
def test_all_kinds_of_target(case, dtype):
    model, y = MODELS[case]
    check(case, model.fit(X.astype(dtype), y), X.astype(dtype))


def quantiles_cross(model):
    outputs = model._outputs(X)
    return (np.diff(outputs.reshape(len(X), -1, 3)) < 0).any()


def test_quantiles_that_cross_are_sorted():
    model, y = MODELS["sorted quantiles"]
    assert quantiles_cross(model.fit(X, y))
    check("sorted quantiles that cross", model, X)


FUNCTIONS = [
    *HIDDEN_ACTIVATIONS,
    ("leaky_relu", 0.3),
    ("elu", 0.7),
    ("linear", -2.0),
    ("step", 0.4),
]


def network(activation, out_activation, dtype):
    rng = np.random.default_rng(0)
    units = [64, 20, 10, 3]
    shapes = list(itertools.pairwise(units))
    coefs = [rng.normal(0, 1.5 / np.sqrt(a), (a, b)).astype(dtype) for a, b in shapes]
    intercepts = [rng.normal(0, 0.5, b).astype(dtype) for b in units[1:]]
    return MLPRegressor.from_weights(
        coefs, intercepts, activation=[activation, "tanh"], out_activation=out_activation
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", FUNCTIONS, ids=str)
def test_activations_of_hidden_layers(activation, dtype):
    given = ((X - 8) / 4).astype(dtype)
    check(f"hidden {activation}", network(activation, "identity", dtype), given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [*OUT_ACTIVATIONS, ("linear", 3.0), ("step", 0.2)], ids=str)
def test_activations_of_outputs(activation, dtype):
    given = ((X - 8) / 4).astype(dtype)
    check(f"output {activation}", network("relu", activation, dtype), given)


@pytest.mark.parametrize("activation", FUNCTIONS, ids=str)
def test_inputs_far_out(activation):
    """Where exp would overflow."""
    check(f"{activation}, far out", network(activation, "identity", float), (X - 8) * 100)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["classes, str", "two classes, threshold", "labels", "outputs"])
def test_in_a_pipeline(case, dtype):
    model, y = MODELS[case]
    columns = ColumnTransformer(
        [("a", StandardScaler(), slice(0, 30)), ("b", MinMaxScaler(), slice(30, 64))]
    )
    given = X.astype(dtype)
    model = make_pipeline(columns, model.set_params(standardize=False)).fit(given, y)
    check(f"pipeline, {case}", model, given)
    model[-1].set_params(standardize=True)


def test_weights_of_float64_for_inputs_of_float32():
    model = MLPClassifier(**SETTINGS).fit(X, Y)
    label, probability = run(converted(model, X.astype(np.float32)), X.astype(np.float32))
    np.testing.assert_array_equal(label, model.predict(X))
    np.testing.assert_allclose(probability, model.predict_proba(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int64, bool])
def test_inputs_of_integers(dtype):
    given = (X > 8) if dtype is bool else X.astype(dtype)
    model = MLPRegressor(**SETTINGS).fit(given, SCALED)
    (outputs,) = run(converted(model, given), given)
    np.testing.assert_allclose(outputs, model.predict(given), rtol=1e-4, atol=1e-5)


def test_probabilities_by_name():
    model = MLPClassifier(**SETTINGS).fit(X.astype(np.float32), NAMES[Y])
    _, rows = run(converted(model, X.astype(np.float32), zipmap=True), X.astype(np.float32))
    expected = model.predict_proba(X[:1].astype(np.float32))[0]
    np.testing.assert_allclose([rows[0][name] for name in model.classes_], expected, 1e-5, 1e-5)
    columns = run(converted(model, X.astype(np.float32), zipmap="columns"), X.astype(np.float32))
    assert len(columns) == 11


@pytest.mark.parametrize("zipmap", [True, "columns"])
def test_probabilities_of_labels_by_name(zipmap):
    given = X.astype(np.float32)
    model = MLPClassifier(**SETTINGS).fit(given, LABELS)
    label, *probability = run(converted(model, given, zipmap=zipmap), given)
    np.testing.assert_array_equal(label, model.predict(given))
    if zipmap == "columns":
        rows = np.transpose(probability)
    else:
        rows = [[row[i] for i in range(3)] for row in probability[0]]
    np.testing.assert_allclose(rows, model.predict_proba(given), 1e-5, 1e-5)


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("activation", ["step", "gelu_erf", "selu"])
def test_older_versions_of_onnx(activation, opset):
    model = MLPRegressor.from_weights(
        [X[:64, :6] / 16, X[:6, :6] / 16],
        [X[0, :6], X[1, :6]],
        activation=activation,
        loss="quantile",
        quantile=[0.2, 0.5, 0.8],
    )
    graph = skl2onnx.to_onnx(model, X[:1], target_opset=opset)
    np.testing.assert_allclose(run(graph, X)[0], model.predict(X), rtol=1e-5, atol=1e-5)


def test_any_number_of_rows():
    model = MLPRegressor(**SETTINGS).fit(X, SCALED)
    graph = converted(model, X)
    for n in (0, 1, 7):
        assert run(graph, X[:n])[0].shape == (n, 3)


# --- what cannot be converted is an error ---------------------------------------------------------


def test_weights_beyond_float32():
    model = MLPRegressor.from_weights([[[1e60]]], [[0.0]])
    with pytest.raises(ValueError, match="beyond the range of float32: convert it for inputs of"):
        skl2onnx.to_onnx(model, np.ones((1, 1), np.float32))
    assert run(skl2onnx.to_onnx(model, np.ones((1, 1))), np.ones((1, 1)))[0] == 1e60


def test_labels_that_onnx_has_not():
    model = MLPClassifier(**SETTINGS).fit(X, Y.astype(np.uint64) + np.uint64(2**63))
    with pytest.raises(ValueError, match="Labels in ONNX are strings or integers of 64 bits"):
        converted(model, X)


def test_one_class():
    model = MLPClassifier(**SETTINGS).fit(X, np.full(300, 7))
    with pytest.raises(ValueError, match="A classifier of the one class"):
        converted(model, X)


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_a_subclass_is_not_converted_as_if_it_were_ours(make):
    class Other(make):
        def predict(self, X):
            return -super().predict(X)

    model = Other(**SETTINGS).fit(X, Y)
    with pytest.raises(Exception, match="Unable to find a shape calculator"):
        converted(model, X)


def test_without_registering(run_python):
    code = """if True:
        import numpy as np, skl2onnx
        from fastnn import MLPRegressor
        model = MLPRegressor.from_weights([[[2.0]]], [[1.0]])
        try:
            skl2onnx.to_onnx(model, np.ones((1, 1)))
        except Exception as error:
            print(error)
    """
    assert "Unable to find a shape calculator" in run_python("-c", code).stdout


def test_without_skl2onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match="pip install skl2onnx"):
        fastnn.onnx.register()


def test_not_fitted():
    with pytest.raises(NotFittedError, match="MLPRegressor instance is not fitted"):
        skl2onnx.to_onnx(MLPRegressor(), X[:1])


def test_text_as_input():
    model = MLPRegressor(**SETTINGS).fit(X, SCALED)
    with pytest.raises(Exception, match=r"(?i)type"):
        skl2onnx.to_onnx(model, X[:1].astype(str))
