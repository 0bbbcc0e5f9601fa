"""Networks of scikit-learn's own classes, there and back, of PyTorch, and saved by skops."""

import numpy as np
import pytest
import scipy.sparse as sp
import skops.io
from sklearn import neural_network as sk
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

import fastnn
from fastnn import (
    MLPClassifier,
    MLPRegressor,
    TabularClassifier,
    backpropagation,
    from_sklearn,
    skops_types,
    to_sklearn,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
LABELS = (np.arange(300)[:, None] * [3, 5, 7] % 4 < 2).astype(int)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "8", "9"])
SETTINGS = dict(hidden_layer_sizes=(12, 7), max_iter=4, random_state=0)

# Of both libraries: the kind of estimator, parameters, y.
SHARED = {
    "classes": ("MLPClassifier", {}, Y),
    "two classes": ("MLPClassifier", {"activation": "tanh"}, Y > 4),
    "names": ("MLPClassifier", {"solver": "sgd", "activation": "logistic"}, NAMES[Y]),
    "two names": ("MLPClassifier", {"solver": "lbfgs"}, NAMES[Y % 2]),
    "labels": ("MLPClassifier", {"solver": "sgd", "nesterovs_momentum": False}, LABELS),
    "sparse labels": ("MLPClassifier", {}, sp.csr_matrix(LABELS)),
    "early stopping": ("MLPClassifier", {"early_stopping": True}, Y),
    "one class": ("MLPClassifier", {}, np.full(300, 3)),
    "regression": ("MLPRegressor", {"activation": "identity"}, X[:, 20]),
    "outputs": ("MLPRegressor", {"solver": "sgd", "learning_rate": "invscaling"}, X[:, 20:23]),
    "poisson": ("MLPRegressor", {"loss": "poisson", "early_stopping": True}, Y * 1.0),
    "adaptive": ("MLPRegressor", {"solver": "sgd", "learning_rate": "adaptive"}, X[:, 20]),
    "no hidden layer": ("MLPRegressor", {"hidden_layer_sizes": ()}, X[:, 20]),
}


def dense(prediction):
    return prediction.toarray() if sp.issparse(prediction) else prediction


def assert_same(first, second, rtol=1e-12, atol=1e-12):
    """Equal predictions, of equal types."""
    one, other = first.predict(X), second.predict(X)
    assert type(one) is type(other)
    assert one.dtype == other.dtype
    if hasattr(first, "predict_proba"):
        np.testing.assert_array_equal(dense(one), dense(other))
        proba = first.predict_proba(X), second.predict_proba(X)
        np.testing.assert_allclose(*proba, rtol, atol)
    else:
        np.testing.assert_allclose(one, other, rtol, atol)
    assert first.n_iter_ == second.n_iter_
    assert getattr(first, "t_", None) == getattr(second, "t_", None)
    assert first.n_features_in_ == second.n_features_in_


def fitted(library, case):
    kind, params, y = SHARED[case]
    return getattr(library, kind)(**{**SETTINGS, **params}).fit(X, y), y


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("library, convert", [(fastnn, to_sklearn), (sk, from_sklearn)])
def test_the_other_class_predicts_the_same_and_goes_on(library, convert, case):
    model, y = fitted(library, case)
    other = convert(model)
    assert type(other).__module__.split(".")[0] == {fastnn: "sklearn", sk: "fastnn"}[library]
    assert type(other).__name__ == type(model).__name__
    assert_same(model, other)
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "loss_"):
        assert getattr(other, name, None) == getattr(model, name, None) or case == "two names"
    assert model.loss_ == other.loss_
    if model.solver == "lbfgs" or model.early_stopping:  # which do not go with partial_fit
        return
    for _ in range(3):
        model.partial_fit(X, y)
        other.partial_fit(X, y)
    assert_same(model, other, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(other.loss_curve_, model.loss_curve_, rtol=1e-9)


# What scikit-learn does not keep, and what prediction and training do not need.
LOST = {"_scaling", "_quantiles", "stop_reason_", "validation_loss_curve_"}


@pytest.mark.parametrize("case", SHARED)
def test_there_and_back_is_the_same_model(case):
    model, y = fitted(fastnn, case)
    back = from_sklearn(to_sklearn(model))
    assert back.get_params() == model.get_params()
    for name in vars(model).keys() - LOST:
        if name == "_optimizer":
            # Whose count of updates the momentum of 'sgd' does not need.
            np.testing.assert_array_equal(back._optimizer.state, model._optimizer.state)
        else:
            np.testing.assert_equal(getattr(back, name), getattr(model, name), name)
    if model.solver != "lbfgs" and not model.early_stopping:
        for estimator in (model, back):
            estimator.partial_fit(X, y)
        for a, b in zip(model.coefs_, back.coefs_, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("library, convert", [(fastnn, to_sklearn), (sk, from_sklearn)])
def test_arrays_are_copies_of_their_type(library, convert):
    model = library.MLPClassifier(**SETTINGS).fit(X.astype(np.float32), Y)
    other = convert(model)
    before = model.predict_proba(X[:5])
    assert all(W.dtype == np.float32 for W in [*other.coefs_, *other.intercepts_])
    for W in other.coefs_:
        W[...] = 0
    other.loss_curve_.clear()
    np.testing.assert_array_equal(model.predict_proba(X[:5]), before)
    assert len(model.loss_curve_) == 4


def test_standardisation_is_in_the_weights_and_the_optimizer_is_left_behind():
    settings = dict(**SETTINGS, standardize=True, standardize_target=True)
    model = MLPRegressor(**settings).fit(X, 100 + 50 * X[:, 20:22])
    other = to_sklearn(model)
    np.testing.assert_allclose(other.predict(X), model.predict(X), 1e-12, 1e-12)
    assert not hasattr(other, "_optimizer")
    assert other.partial_fit(X, X[:, 20:22]).predict(X).shape == (300, 2)


def test_given_weights_that_were_never_fitted():
    model = MLPRegressor.from_weights([[[2.0]], [[1.0]]], [[1.0], [0.0]], activation=["relu"])
    other = to_sklearn(model)
    assert other.predict([[3.0]]) == [7.0]
    assert other.activation == "relu"
    assert other.partial_fit([[3.0]], [7.5]).n_iter_ == 1


def test_a_cross_validation_of_the_other_class():
    other = to_sklearn(MLPClassifier(**{**SETTINGS, "max_iter": 30}).fit(X, Y))
    assert cross_val_score(other.set_params(learning_rate_init=0.05), X, Y, cv=2).mean() > 0.5


# What scikit-learn cannot hold: parameters, y, what the error names.
REFUSED = {
    "activation": (MLPClassifier, {"activation": ("leaky_relu", 0.2)}, Y),
    "activation list": (MLPClassifier, {"activation": ["relu", "tanh"]}, Y),
    "loss": (MLPClassifier, {"loss": "squared_error"}, Y),
    "huber": (MLPRegressor, {"loss": "huber"}, X[:, 20]),
    "quantile": (MLPRegressor, {"loss": "quantile", "quantile": [0.1, 0.9]}, X[:, 20]),
    "out_activation": (MLPRegressor, {"out_activation": "relu"}, X[:, 20]),
    "threshold": (MLPClassifier, {"threshold": 0.3}, Y > 4),
    "thresholds": (MLPClassifier, {"threshold": [0.5, 0.5, 0.2]}, LABELS),
    "pos_label": (MLPClassifier, {"pos_label": False}, Y > 4),
    "solver": (MLPClassifier, {"solver": "nadam"}, Y),
    "dropout": (MLPClassifier, {"dropout": [0.0, 0.1]}, Y),
    "learning_rate": (MLPRegressor, {"learning_rate": "cosine"}, X[:, 20]),
    "clip_norm": (MLPRegressor, {"clip_norm": 1.0}, X[:, 20]),
    "class_weight": (MLPClassifier, {"class_weight": {3: 2.0}}, Y),
    "batch_size": (MLPClassifier, {"batch_size": "full"}, Y),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_scikit_learn_cannot_hold_is_an_error_that_names_it(case):
    make, params, y = REFUSED[case]
    model = make(**SETTINGS, **params).fit(X, y)
    name = next(iter(params))
    with pytest.raises(ValueError, match="cannot hold") as error:
        to_sklearn(model)
    assert f"{name}={params[name]!r}" in str(error.value)


def test_all_that_it_cannot_hold_is_named_at_once_and_may_be_replaced():
    model = MLPClassifier(**SETTINGS, solver="nadam", dropout=0.1).fit(X, Y)
    said = r"cannot hold solver='nadam', dropout=0\.1\. .*model, solver=\.\.\., dropout=\.\.\.\)"
    with pytest.raises(ValueError, match=said):
        to_sklearn(model)
    other = to_sklearn(model, solver="adam", dropout=0)
    assert other.solver == "adam"
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), 1e-12, 1e-12)
    assert not hasattr(other, "_optimizer")  # the state was that of another solver
    assert model.solver == "nadam"
    for name in ("drop", "activation", "threshold"):
        with pytest.raises(TypeError, match=rf"\['{name}'\] cannot be replaced"):
            to_sklearn(model, **{name: 0})


def test_parameters_that_it_need_not_hold():
    more = dict(n_threads=2, init="he", verbose=False, pos_label=True, weight_decay=0.1)
    model = MLPClassifier(**SETTINGS, **more, activation=["tanh", "tanh"]).fit(X, Y > 4)
    assert_same(model, to_sklearn(model))


def test_subclasses():
    class Ours(MLPClassifier):
        def __init__(self, alpha=0.1):
            super().__init__((5,), alpha=alpha, max_iter=3)

    class Theirs(sk.MLPRegressor):
        pass

    model = Ours().fit(X, Y)
    other = to_sklearn(model)
    assert type(other) is sk.MLPClassifier
    assert (other.hidden_layer_sizes, other.alpha) == ((5,), 0.1)
    assert_same(model, other)
    assert type(from_sklearn(Theirs(max_iter=2).fit(X, Y))) is MLPRegressor


@pytest.mark.parametrize(
    "convert, model", [(to_sklearn, MLPClassifier()), (from_sklearn, sk.MLPRegressor())]
)
def test_not_fitted_and_others(convert, model):
    with pytest.raises(NotFittedError):
        convert(model)
    for other in (3, TabularClassifier()):
        with pytest.raises(TypeError, match="model must be an MLPClassifier or MLPRegressor of"):
            convert(other)


def test_members_that_read_sparse_rows_by_sums_of_weights_are_refused():
    """Elsewhere the same weights would predict something else of the same rows."""
    table = np.random.default_rng(0).standard_normal((200, 3))
    y = table[:, 0] > 0
    for embedding in ("piecewise_linear", None):
        model = TabularClassifier(1, (5,), max_iter=2, numerical_embedding=embedding).fit(table, y)
        (member,) = model.members_
        settings = dict(solver="adam", dropout=0, learning_rate="constant", scoring=None)
        if model._encoder.is_sparse:
            with pytest.raises(ValueError, match="reads sparse rows in a way of its own"):
                to_sklearn(member, **settings)
            with pytest.raises(ValueError, match="reads sparse rows in a way of its own"):
                backpropagation(member, sp.csr_array((1, member.n_features_in_)), None)
        else:
            encoded = model._encoder.transform(list(table.T), range(3))
            slow = to_sklearn(member, **settings)
            found, expected = slow.predict_proba(encoded), member.predict_proba(encoded)
            np.testing.assert_allclose(found, expected, rtol=1e-5)


# --- skops ---------------------------------------------------------------------------------------


def checkpoints(after_epochs):
    kept = []
    model = MLPClassifier(**SETTINGS, weight_average=3)
    if hasattr(model, "set_callbacks"):
        model.set_callbacks(after_epochs(lambda _, fitted: kept.append(fitted.set_callbacks())))
    model.fit(X, Y)
    return kept


def test_skops_loads_all_that_fastnn_saves_by_the_types_that_are_named(after_epochs):
    models = [fitted(fastnn, case)[0] for case in SHARED]
    models += [make(**SETTINGS, **params).fit(X, y) for make, params, y in REFUSED.values()]
    models += [MLPRegressor(**SETTINGS, standardize=True, standardize_target=True).fit(X, Y)]
    models += [fastnn.TabularClassifier(2, 9, max_iter=2).fit(X, Y)]
    models += [fastnn.TabularRegressor(2, 9, max_iter=2).fit(X, Y)]
    models += checkpoints(after_epochs)
    found = set()
    for model in models:
        saved = skops.io.dumps(model)
        found.update(skops.io.get_untrusted_types(data=saved))
        assert_same(skops.io.loads(saved, trusted=skops_types()), model)
    assert found <= set(skops_types())
    if hasattr(MLPClassifier, "set_callbacks"):  # without them there are no checkpoints
        assert found == set(skops_types())


def test_skops_trusts_nothing_else():
    saved = skops.io.dumps(MLPRegressor(learning_rate=cross_val_score))
    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException, match="cross_val_score"):
        skops.io.loads(saved, trusted=skops_types())


# --- PyTorch -------------------------------------------------------------------------------------


def test_weights_of_pytorch():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 9), torch.nn.GELU(), torch.nn.Linear(9, 4), torch.nn.Linear(4, 3)
    )
    linear = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
    arrays = [[p.detach().numpy() for p in layer.parameters()] for layer in linear]
    model = MLPRegressor.from_weights(
        [W.T for W, _ in arrays], [b for _, b in arrays], activation=["gelu_erf", "identity"]
    )
    single = X.astype(np.float32)
    expected = net(torch.from_numpy(single)).detach().numpy()
    np.testing.assert_allclose(model.predict(single), expected, rtol=1e-4, atol=1e-5)
