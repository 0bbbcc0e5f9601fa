"""Dropout, gradient clipping, label smoothing, weight decay: that they are what they should be."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fastnn import MLPClassifier, MLPRegressor
from fastnn._network import make_data, make_net
from fastnn._trainer import Trainer
from fastnn.kernels.layout import starts_of
from fastnn.kernels.rules import GRADIENT, SGD, Rule

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X = X / 16
UNITS = [4, 6, 5, 2]


def small_problem(n=12, **settings):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(starts_of(UNITS)[-1]) * 0.5
    data = make_data(rng.standard_normal((n, 4)), targets=rng.standard_normal((n, 2)))
    return theta, data, make_net(UNITS, out_activation=None, loss="rss", **settings)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "elu", "logistic"])
def test_gradient_with_dropout_is_the_finite_difference_of_the_loss(activation):
    """With one and the same mask, which depends on the number of the update."""
    theta, data, net = small_problem(activation=activation, dropout=[0.4, 0.3], seed=7)
    rows = np.arange(12)
    with Trainer(net, theta, data, 12, 1) as trainer:

        def loss_and_gradient(at):
            trainer.updates = 3
            return trainer.loss_and_gradient(at, rows, 0.1)

        at = theta.copy()
        _, gradient = loss_and_gradient(at)
        numeric = np.empty_like(gradient)
        for i, step in enumerate(np.eye(at.size) * 1e-6):
            above, below = loss_and_gradient(at + step)[0], loss_and_gradient(at - step)[0]
            numeric[i] = (above - below) / 2e-6
    np.testing.assert_allclose(gradient, numeric, atol=2e-7)


def masks(updates, n=400, rate=0.3, seed=1):
    """Which units of a hidden layer are kept: the gradient of their output weights says it."""
    net = make_net([1, 50, 1], "identity", None, "rss", rate, seed)
    theta = np.ones(starts_of([1, 50, 1])[-1])
    data = make_data(np.ones((n, 1)), targets=np.full((n, 1), -1e6))
    kept = []
    with Trainer(net, theta, data, 1, 1) as trainer:
        for t in updates:
            trainer.updates = t
            trainer.run_epoch(np.arange(n)[-1:], Rule(GRADIENT, 0.0, 0.0, 0.0, 0.0, 0.0))
            kept.append(trainer.gradient[-50:] != 0)
    return np.array(kept)


def test_the_rate_of_dropout_is_kept_and_units_are_independent():
    kept = masks(range(400))
    assert abs(kept.mean() - 0.7) < 0.01
    assert np.ptp(kept.mean(axis=0)) < 0.2
    assert abs(np.corrcoef(kept[:, :10].T) - np.eye(10)).max() < 0.2
    assert abs(np.corrcoef(kept[:-1].ravel(), kept[1:].ravel())[0, 1]) < 0.03
    assert not np.array_equal(kept, masks(range(400), seed=2))
    np.testing.assert_array_equal(kept, masks(range(400)))


def test_dropout_keeps_the_expected_activation():
    """Inverted dropout: the mean over many masks is the activation without."""
    net = make_net([1, 64, 1], "identity", None, "rss", 0.5, 3)
    theta = np.zeros(starts_of([1, 64, 1])[-1])
    theta[:64], theta[-64:] = 1.0, 1 / 64
    n = 4000
    data = make_data(np.zeros((n, 1)), targets=np.zeros((n, 1)))
    with Trainer(net, theta, data, n, 1) as trainer:
        _, gradient = trainer.loss_and_gradient(theta, np.arange(n), 0.0)
    # Of C = a^2 with a = the mean of 64 units that are 0 or 2: dC/db = 2 E[a].
    assert gradient[128] == pytest.approx(2.0, abs=0.01)


def test_dropout_narrows_the_gap_between_training_and_test():
    """With few examples: the loss on others is lower, though that on the training set is higher."""
    losses = []
    for dropout in (0.0, 0.5):
        for seed in range(3):
            model = MLPClassifier((200,), dropout=dropout, max_iter=400, random_state=seed)
            model.set_params(n_iter_no_change=np.inf)
            X_train, X_test, y_train, y_test = train_test_split(
                X, Y, train_size=150, random_state=seed
            )
            model.fit(X_train, y_train)
            for examples, y in ((X_train, y_train), (X_test, y_test)):
                probability = model.predict_proba(examples)[np.arange(len(y)), y]
                losses.append(-np.log(probability).mean())
    (train, test), (train_dropped, test_dropped) = (
        np.reshape(losses, (2, 3, 2)).mean(axis=1).tolist()
    )
    assert train_dropped > train
    assert test_dropped < test
    assert test_dropped - train_dropped < 0.95 * (test - train)


def test_prediction_knows_no_dropout():
    model = MLPClassifier(dropout=0.5, max_iter=3, random_state=0).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    without = MLPClassifier(max_iter=1, random_state=0, warm_start=True).fit(X, Y)
    without.coefs_, without.intercepts_ = model.coefs_, model.intercepts_
    np.testing.assert_array_equal(model.predict_proba(X), without.predict_proba(X))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_validation_knows_no_dropout(early_stopping):
    model = MLPClassifier(dropout=0.7, max_iter=2, random_state=0, early_stopping=early_stopping)
    model.fit(X[:900], Y[:900], X_val=X[900:], y_val=Y[900:])
    probability = model.predict_proba(X[900:])[np.arange(len(Y) - 900), Y[900:]]
    last = int(np.argmax(model.validation_scores_)) if early_stopping else -1
    assert model.validation_scores_[last] == model.score(X[900:], Y[900:])
    assert model.validation_loss_curve_[last] == pytest.approx(-np.log(probability).mean())


@pytest.mark.parametrize("dropout", [[0.1], [0.1, 1.0], [0.1, "a"], [0.1, 0.2, 0.3]])
def test_wrong_rates_of_dropout(dropout):
    with pytest.raises(ValueError, match="dropout must be a number in"):
        MLPClassifier((5, 5), dropout=dropout).fit(X, Y)


def test_dropout_and_lbfgs_do_not_go_together():
    with pytest.raises(ValueError, match=r"dropout=0\.1 makes the loss random"):
        MLPClassifier(dropout=0.1, solver="lbfgs").fit(X, Y)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("limit", [1e-3, 0.5, 1e9])
def test_the_clipped_gradient_has_the_norm_that_is_allowed(limit, n_threads):
    theta, data, net = small_problem(activation="tanh")
    before = theta.copy()
    with Trainer(net, theta, data, 12, n_threads, np.zeros((1, theta.size))) as trainer:
        _, gradient = trainer.loss_and_gradient(theta.copy(), np.arange(12), 0.3)
        theta[:] = before
        rule = Rule(SGD, 1.0, 0.3, 0.0, 0.0, 0.0, clip_norm=limit)
        trainer.run_epoch(np.arange(12), rule)
    norm = np.linalg.norm(gradient)
    step = before - theta
    np.testing.assert_allclose(step, gradient * min(1, limit / norm), rtol=1e-9, atol=1e-12)


def test_clipping_saves_a_fit_from_a_high_learning_rate():
    settings = {"solver": "sgd", "activation": "identity", "learning_rate_init": 3.0}
    settings |= {"max_iter": 30, "random_state": 0}
    with pytest.raises(ValueError, match="non-finite"):
        MLPRegressor(**settings).fit(X, Y)
    assert np.isfinite(MLPRegressor(clip_norm=0.01, **settings).fit(X, Y).loss_)


def test_label_smoothing_keeps_probabilities_from_the_ends():
    settings = {"max_iter": 200, "random_state": 0, "alpha": 0}
    sharp = MLPClassifier(**settings).fit(X, Y).predict_proba(X).max(axis=1)
    smooth = MLPClassifier(label_smoothing=0.2, **settings).fit(X, Y).predict_proba(X).max(axis=1)
    assert np.median(sharp) > 0.99
    assert np.median(smooth) == pytest.approx(0.8 + 0.2 / 10, abs=0.03)


def test_weight_decay_shrinks_the_weights():
    norms = []
    for decay in (0.0, 3.0):
        model = MLPClassifier(solver="adamw", weight_decay=decay, alpha=0, max_iter=50)
        model.set_params(random_state=0).fit(X, Y)
        norms.append(sum((W**2).sum() for W in model.coefs_))
    assert norms[1] < 0.7 * norms[0]
