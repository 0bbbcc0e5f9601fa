"""The same random_state gives the same bits: on any number of threads, in any process."""

import hashlib
import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits

import grids
from fastnn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:403] / 16, Y[:403]
WEIGHT = np.random.default_rng(0).uniform(0, 2, len(X))


def bits(model):
    return b"".join(a.tobytes() for a in [*model.coefs_, *model.intercepts_])


SETTINGS = {
    "default": {},
    "three layers": {"hidden_layer_sizes": (33, 7, 20), "activation": "tanh", "batch_size": 50},
    "no hidden layer": {"hidden_layer_sizes": (), "batch_size": 1},
    "one batch": {"hidden_layer_sizes": (300,), "solver": "sgd", "batch_size": 403},
    "lbfgs": {"solver": "lbfgs", "hidden_layer_sizes": (40,), "activation": "logistic"},
    "early stopping": {"early_stopping": True, "learning_rate_init": 0.01},
    "dropout": {"dropout": 0.3, "activation": "tanh", "hidden_layer_sizes": (40, 20)},
    "clipped": {"clip_norm": 0.02, "solver": "nadam", "label_smoothing": 0.1},
    "clipped and wide": {
        "activation": ["gelu", "elu"],
        "hidden_layer_sizes": (90, 60),
        "clip_norm": 0.02,
    },
}
ALL = list(
    itertools.product(
        SETTINGS, [np.asarray, sp.csr_array], [np.float32, np.float64], [2, 3, 5, -2, None]
    )
)


@pytest.mark.parametrize(
    "name, container, dtype, n_threads", grids.nightly_but(ALL, grids.covering(ALL, 2))
)
def test_any_number_of_threads_gives_the_same_bits(name, container, dtype, n_threads):
    results = []
    for threads in (1, n_threads):
        model = MLPClassifier(max_iter=4, random_state=0, n_threads=threads, **SETTINGS[name])
        model.fit(container(X.astype(dtype)), Y, sample_weight=WEIGHT)
        probability = model.predict_proba(container(X.astype(dtype)))
        results.append((bits(model), model.loss_, probability.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.01}], ids=str)
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_threads_that_take_chunks_of_others_give_the_same_bits(container, settings, monkeypatch):
    """Of five threads on fewer cores, some are late, and others take over what is theirs."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 5)
    results = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr("fastnn._pace.Pace.next_slice", lambda self, n=n_threads: (n, 10**6))
        model = MLPClassifier((300, 200), max_iter=3, random_state=0, n_threads=n_threads)
        model.set_params(**settings).fit(container(X), Y, sample_weight=WEIGHT)
        results.append((bits(model), model.loss_))
    assert results[0] == results[1] == results[2]


def case(hidden_layer_sizes, **settings):
    return {"hidden_layer_sizes": hidden_layer_sizes, "batch_size": 150, **settings}


@pytest.mark.parametrize(
    "settings",
    [
        case((40,), solver="sgd"),
        case((150, 30)),  # too large for parts by rows on one thread, as those that follow
        case((150, 30), activation=["gelu", "relu"], dropout=0.2, clip_norm=0.02),
        case((150, 30), batch_size=1300, max_iter=6),
        case((300, 200), clip_norm=0.02),  # updated by chunks
        case((300, 200), learning_rate_init=0.01, solver="adamw"),
        case((500, 300)),  # not in parts
    ],
    ids=str,
)
def test_parts_of_the_gradient_give_the_same_bits_whoever_forms_them(settings, monkeypatch):
    """Two threads each have a part, three go through both; slices change from one to the other."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    rng = np.random.default_rng(0)
    many, labels, weight = np.tile(X, (4, 1)), np.tile(Y, 4), np.tile(WEIGHT, 4)
    results = []
    for most in (1, 2, 3):
        for changing in (False, True):

            def next_slice(self, most=most, changing=changing):
                return (rng.choice([1, most]), 300) if changing else (most, 10**6)

            monkeypatch.setattr("fastnn._pace.Pace.next_slice", next_slice)
            model = MLPClassifier(random_state=0, n_threads=most, **{"max_iter": 3, **settings})
            model.fit(many, labels, sample_weight=weight)
            results.append((bits(model), model.loss_curve_))
    assert all(result == results[0] for result in results[1:])


@pytest.mark.parametrize(
    "settings", [{}, {"hidden_layer_sizes": (9,), "batch_size": 130}, {"clip_norm": 0.02}], ids=str
)
def test_lazy_updates_give_the_same_bits_on_any_number_of_threads(settings):
    settings = {"batch_size": 10, "max_iter": 3, "random_state": 0, **settings}
    rng = np.random.default_rng(0)
    words = sp.random_array((len(X), 500), density=0.01, random_state=rng, format="csr")
    expected, other = (
        bits(MLPClassifier(lazy_update=True, n_threads=n, **settings).fit(words, Y)) for n in (1, 3)
    )
    assert expected == other
    assert expected != bits(MLPClassifier(n_threads=1, **settings).fit(words, Y))


@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"clip_norm": 0.01}], ids=str)
@pytest.mark.parametrize("batch_size", [1025, 2500, "full"])
def test_slices_that_end_inside_a_mini_batch_give_the_same_bits(settings, batch_size, monkeypatch):
    """So that Ctrl-C need not wait for the end of a large one."""
    many, labels, weight = np.tile(X, (8, 1)), np.tile(Y, 8), np.tile(WEIGHT, 8)
    settings = {"batch_size": batch_size, "max_iter": 3, "random_state": 0, **settings}
    results, slices = [], []

    def next_slice(self):
        slices.append(now)
        return now

    monkeypatch.setattr("fastnn._pace.Pace.next_slice", next_slice)
    for now in [(1, 10**6), (1, 1), (2, 1)]:
        slices.clear()
        model = MLPClassifier((9,), n_threads=now[0], **settings)
        model.fit(many, labels, sample_weight=weight)
        results.append((bits(model), model.loss_, len(slices)))
    assert results[0][:2] == results[1][:2] == results[2][:2]
    assert results[0][2] < results[1][2]


def test_changing_the_number_of_threads_on_the_way_gives_the_same_bits(monkeypatch):
    """A helper that was slow to wake once took the orders of the next slice for its own."""
    settings = {"max_iter": 40, "random_state": 0, "batch_size": 40, "tol": 0}
    expected = bits(MLPClassifier(n_threads=1, **settings).fit(X, Y))
    rng = np.random.default_rng(0)

    def next_slice(self):
        return int(rng.choice(list(self._speeds))), int(rng.integers(1, 200))

    monkeypatch.setattr("fastnn._pace.Pace.next_slice", next_slice)
    monkeypatch.setattr("fastnn._trainer.choose_n_threads", lambda n_threads, operations: 3)
    for _ in range(5):
        assert bits(MLPClassifier(**settings).fit(X, Y)) == expected


@pytest.mark.parametrize("n_threads", [2, 3])
@pytest.mark.parametrize("batch_size", [40, 2500, "full"])
@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_slices_that_end_as_their_time_is_over_give_the_same_bits(
    clip_norm, batch_size, n_threads, monkeypatch
):
    """Where helpers wait for their turn on a busy core."""
    many, labels, weight = np.tile(X, (8, 1)), np.tile(Y, 8), np.tile(WEIGHT, 8)
    settings = {"batch_size": batch_size, "clip_norm": clip_norm, "max_iter": 3, "random_state": 0}
    expected = MLPClassifier((9,), n_threads=1, **settings).fit(many, labels, sample_weight=weight)
    slices = []
    monkeypatch.setattr("fastnn._pace.Pace.next_slice", lambda self: (n_threads, 10**6))
    monkeypatch.setattr("fastnn._pace.Pace.limit", 0.0)
    monkeypatch.setattr("fastnn._pace.Pace.record", lambda self, *slice: slices.append(slice))
    model = MLPClassifier((9,), n_threads=n_threads, **settings)
    model.fit(many, labels, sample_weight=weight)
    assert bits(model) == bits(expected)
    assert model.loss_curve_ == expected.loss_curve_
    # A slice for each mini-batch, or for each block of 1024 of larger ones.
    size = len(many) if batch_size == "full" else batch_size
    blocks = -(-size // 1024)
    assert [done for _, done, _ in slices][:blocks] == [min(1024, size)] * (blocks - 1) + [
        size - 1024 * (blocks - 1)
    ]
    assert sum(done for _, done, _ in slices) == 3 * len(many)


def test_slices_that_end_in_skipped_batches_give_the_same_bits(monkeypatch):
    """Helpers once went on reading the rows of a slice after its last barrier."""
    weight = np.where(np.arange(len(X)) // 10 % 3 == 0, 1.0, 0.0)  # two batches of three count not
    settings = {"max_iter": 30, "random_state": 0, "batch_size": 10, "shuffle": False, "tol": 0}
    expected = bits(MLPClassifier(n_threads=1, **settings).fit(X, Y, sample_weight=weight))
    monkeypatch.setattr("fastnn._pace.Pace.next_slice", lambda self: (3, 20))
    for _ in range(5):
        model = MLPClassifier(n_threads=3, **settings).fit(X, Y, sample_weight=weight)
        assert bits(model) == expected


@pytest.mark.parametrize("n_threads", [2, 3])
def test_any_number_of_threads_gives_the_same_regression(n_threads):
    targets = np.stack([X.sum(1), X[:, 20], Y], axis=1)
    results = []
    for threads in (1, n_threads):
        model = MLPRegressor(max_iter=4, random_state=0, n_threads=threads).fit(X, targets)
        results.append((bits(model), model.predict(X).tobytes()))
    assert results[0] == results[1]


def test_predictions_do_not_depend_on_the_other_rows():
    model = MLPClassifier((33, 7), max_iter=3, random_state=0).fit(X, Y)
    whole = model.predict_proba(X)
    for part in (slice(0, 1), slice(5, 6), slice(7, 20), slice(100, 403)):
        np.testing.assert_array_equal(model.predict_proba(X[part]), whole[part])


def test_another_process_gives_the_same_bits(run_python):
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sklearn.datasets import load_digits\n"
        "from fastnn import MLPClassifier\n"
        "import hashlib\n"
        "X, y = load_digits(return_X_y=True)\n"
        "model = MLPClassifier(max_iter=3, random_state=0).fit(X[:403] / 16, y[:403])\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in model.coefs_)).hexdigest())\n"
    )
    here = MLPClassifier(max_iter=3, random_state=0).fit(X, Y)
    digest = hashlib.sha256(b"".join(a.tobytes() for a in here.coefs_)).hexdigest()
    assert run_python("-c", code).stdout.strip() == digest
