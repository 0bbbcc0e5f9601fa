"""What workers do for the sections of the sweep, beside the fits of ``peers``."""

import os
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import scipy.sparse as sp
import threadpoolctl

from .cases import CASES, Case, make_data
from .peers import parameters, prepare_fastnn, torch_network
from .texts import load_texts


def _classifier(library):
    if library == "fastnn":
        from fastnn import MLPClassifier
    else:
        from sklearn.neural_network import MLPClassifier
    return MLPClassifier


def prepare_predict(library, method, n_rows, changes=None):
    """Returns ``run(repeats)``, the mean output of ``method`` on rows with A's 20 features.

    All libraries predict with the weights of one network that scikit-learn trained. ``changes``:
    of the case.
    """
    case = CASES["A"]._replace(n=1_000, **(changes or {}))
    data = make_data(case)
    settings = {**parameters(case), "max_iter": 5}
    trained = _classifier("scikit-learn")(**settings).fit(*data)
    X = make_data(case._replace(n=n_rows + case.classes))[0][case.classes :]
    if library == "PyTorch":
        call = _torch_prediction(case, trained, method, X)
    else:
        model = _classifier(library)(**settings).fit(*data)
        theirs = [*trained.coefs_, *trained.intercepts_]
        for array, values in zip([*model.coefs_, *model.intercepts_], theirs, strict=True):
            array[...] = values
        predict = getattr(model, method)

        def call():
            return predict(X)

    def run(repeats):
        for _ in range(repeats):
            output = call()
        return float(np.mean(output if output.ndim == 1 else output[:, 1]))

    return run


def _torch_prediction(case, trained, method, X):
    import torch

    net = torch_network(case, list(zip(trained.coefs_, trained.intercepts_, strict=True)))

    def call():
        with torch.inference_mode():
            z = net(torch.from_numpy(X))
            if method == "predict":
                return (z.ravel() > 0).long().numpy()
            p = torch.sigmoid(z)
            return torch.hstack([1 - p, p]).numpy()

    return call


def prepare_grid(library, backend, max_iter):
    """Returns ``run()``, the mean score of a grid search with 20 candidates and 5 folds."""
    from sklearn.model_selection import GridSearchCV

    case = CASES["A"]
    X, y = make_data(case)
    model = _classifier(library)(**{**parameters(case), "max_iter": max_iter})
    grid = {
        "alpha": np.logspace(-5, -1, 5),
        "learning_rate_init": np.logspace(-3.5, -2, 4),
    }

    def run():
        with joblib.parallel_config(backend, n_jobs=2):
            search = GridSearchCV(model, grid, cv=5, refit=False).fit(X, y)
        return float(np.mean(search.cv_results_["mean_test_score"]))

    return run


SOURCES = "memory", "arrays", "arrays with cache", "Parquet", "Parquet with cache"
TEXT = Case("text", 16_000, 59_000, (64,), 20, 32)  # by lazy updates; has no Parquet


def prepare_stream(source, case):
    """Returns ``run(epochs)``, the last loss of a fit from one of ``SOURCES``."""
    is_text = case.name == TEXT.name
    X, y = make_text(case.n, case.d) if is_text else make_data(case)
    settings = parameters(case) | ({"lazy_update": True} if is_text else {})
    data, folder, buffer_rows = (X, y), tempfile.TemporaryDirectory(), case.n // 10
    if source != "memory":
        from fastnn import Stream

        def batches():
            for first in range(0, case.n, buffer_rows):
                rows = slice(first, first + buffer_rows)
                yield X[rows], y[rows]

        cache = folder.name if source.endswith("cache") else None
        data = (Stream(batches, buffer_rows=buffer_rows, cache=cache),)
    if source.startswith("Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {f"x{i}": column for i, column in enumerate(X.T.copy())}
        path = Path(folder.name, "all.parquet")
        pq.write_table(pa.table({**columns, "y": y}), path, row_group_size=buffer_rows)
        data = (Stream(path, target="y", buffer_rows=buffer_rows, cache=cache),)

    def run(epochs):
        model = _classifier("fastnn")(**{**settings, "max_iter": epochs})
        return float(model.fit(*data).loss_)

    run.folder = folder  # as long as it is run
    return run


def prepare_on_one_core(case):
    """As fastnn's ``prepare``, after this process was confined to one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return prepare_fastnn(case)


def prepare_timed_fit(case, after_blas):
    """Returns ``run(epochs)``: the seconds of a fit, directly after a product of BLAS if wanted.

    The threads of a BLAS go on spinning after it, and would take cores from the fit.
    """
    fit = prepare_fastnn(case)
    A = np.ones((2000, 2000), np.float32)

    def run(epochs):
        if after_blas:
            A @ A
        started = time.perf_counter()
        fit(epochs)
        return time.perf_counter() - started

    return run


def prepare_product(library, M, K, N, transposed, dtype, n_threads):
    """Returns ``run(repeats)``: C <- A B by fastnn's kernel or by NumPy's BLAS.

    Of fastnn on blocks of rows if on several threads. Both are called from Python, which takes
    half a microsecond each.
    """
    from .kernel_calls import product_on_threads

    rng = np.random.default_rng(0)
    A = rng.standard_normal((K, M) if transposed else (M, K)).astype(dtype)
    A = A.T if transposed else A
    B = rng.standard_normal((K, N)).astype(dtype)
    C = np.empty((M, N), dtype)
    threadpoolctl.threadpool_limits(n_threads, user_api="blas")

    def call(multiply, repeats):
        for _ in range(repeats):
            multiply()

    def run(repeats):
        if library == "np.dot":
            return call(lambda: np.dot(A, B, out=C), repeats)
        with product_on_threads(C, A, B, n_threads) as multiply:
            return call(multiply, repeats)

    run(1)
    tolerance = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(C, A @ B, rtol=tolerance, atol=tolerance * np.sqrt(K))
    return run


def _peak_bytes():
    """The largest resident size of this process so far."""
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def save_data(case, folder):
    """Write the data of a case to files: making it takes more memory than having it.

    Returns a callable because workers keep one.
    """

    def run():
        for name, array in zip("Xy", make_data(case), strict=True):
            np.save(folder / f"{name}.npy", array)
        # Compiling takes memory, too: kernels are in the disk cache after this.
        _fit_few(_classifier("fastnn"), case)

    return run


def _fit_few(make, case):
    few = case._replace(n=2_000, batch=200)
    return make(**{**parameters(few), "max_iter": 1}).fit(*make_data(few))


def prepare_memory(library, case, folder):
    """Returns ``run()``: bytes of data, model and process around one epoch of ``fit``.

    Those of the process are peaks: with libraries only, before and after ``fit``.
    """
    make = _classifier(library)
    _fit_few(make, case._replace(classes=10))
    libraries = _peak_bytes()
    X, y = (np.load(folder / f"{name}.npy") for name in "Xy")
    before = _peak_bytes()

    def run():
        model = make(**{**parameters(case), "max_iter": 1}).fit(X, y)
        return {
            "data": X.nbytes + y.nbytes,
            "model": sum(a.nbytes for a in [*model.coefs_, *model.intercepts_]),
            "libraries": libraries,
            "before": before,
            "peak": _peak_bytes(),
        }

    return run


def make_text(n, terms=59_000):
    """Rows like those of TF-IDF, CSR in float32 with some 71 entries each, and their class."""
    rng = np.random.default_rng(0)
    frequency = np.cumsum(1 / np.arange(1, terms + 1) ** 0.9)
    lengths = rng.poisson(80, n)
    drawn = np.searchsorted(frequency / frequency[-1], rng.random(lengths.sum()))
    columns, rows = rng.permutation(terms)[drawn], np.repeat(np.arange(n), lengths)
    X = sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, terms))
    X.data = 1 + np.log(X.data)
    X.data /= np.sqrt(np.repeat((X * X).sum(axis=1), np.diff(X.indptr)))
    return X, (X @ rng.standard_normal((terms, 20), np.float32)).argmax(axis=1)


def prepare_text(library, n, batch, lazy):
    """Returns ``run()``: CPU seconds of an update, from fits of three epochs and of one."""
    X, y = make_text(n)
    if library == "scikit-learn":
        X, y = X[: 20 * batch], y[: 20 * batch]  # its updates take as long on few rows
    settings = {"random_state": 0, "batch_size": batch, "tol": 0}
    if library == "fastnn":
        settings |= {"lazy_update": lazy, "n_threads": 1}

    def seconds(epochs):
        model = _classifier(library)((64,), max_iter=epochs, **settings)
        started = time.process_time()
        model.fit(X, y)
        return time.process_time() - started

    def run():
        threadpoolctl.threadpool_limits(1)
        return (seconds(3) - seconds(1)) / 2 / -(-X.shape[0] // batch)

    return run


def save_docstrings(n, folder):
    """Returns ``run()``, which writes the TF-IDF of ``n`` texts and of a quarter as many to test
    on, and tells its shape."""

    def run():
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts, y, test, y_test = load_texts(n, n // 4)
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, dtype=np.float32)
        X = vectorizer.fit_transform(texts)
        joblib.dump((X, y, vectorizer.transform(test), y_test), folder / "docstrings.joblib")
        return X.shape

    return run


def prepare_docstrings(library, batch, lazy, epochs, folder):
    """Returns ``run(seed)``: CPU seconds of a fit, and its accuracy on the texts to test on."""
    X, y, X_test, y_test = joblib.load(folder / "docstrings.joblib")
    if library == "logistic regression":
        from sklearn.linear_model import SGDClassifier

        model = SGDClassifier(loss="log_loss", alpha=1e-5)
    else:
        model = _classifier(library)((64,), batch_size=batch, max_iter=epochs)
    if library == "fastnn":
        model.set_params(lazy_update=lazy, n_threads=1)
        model.fit(X[:batch], y[:batch])  # compiled before it is timed

    def run(seed):
        threadpoolctl.threadpool_limits(1)
        model.set_params(random_state=seed)
        started = time.process_time()
        model.fit(X, y)
        return time.process_time() - started, model.score(X_test, y_test)

    return run


def prepare_scaling():
    """Returns ``run()``: CPU seconds to read and write the weights and moments of that network."""
    import numba

    @numba.njit(fastmath=True)
    def scale(a, b, c, factor):
        for i in range(a.size):
            a[i] *= factor
            b[i] *= factor
            c[i] *= factor

    vectors = [np.ones(59_001 * 64 + 65 * 20, np.float32) for _ in range(3)]

    def run():
        started = time.process_time()
        for _ in range(20):
            scale(*vectors, np.float32(1))
        return (time.process_time() - started) / 20

    return run


def prepare_bins(kind, T, hidden):
    """Returns ``run()``: epochs of 20 numbers in T bins each, or as they are ('dense').

    'knots': two entries each, values at knots as weights; 'sums': the same, with differences as
    weights; 'matrix': the product with the code of the differences.
    """
    from fastnn._network import make_data, make_net
    from fastnn._trainer import Trainer
    from fastnn.kernels.layout import empty_theta, starts_of
    from fastnn.kernels.rules import ADAM, Rule

    n, d, rng = 10_240, 20, np.random.default_rng(0)
    X, continued = rng.random((n, d), np.float32), None
    if kind != "dense":
        knot = np.minimum((X * (T - 1)).astype(int), T - 2)
        above = X * (T - 1) - knot
        columns = np.stack([knot, knot + 1], 2) + T * np.arange(d)[:, None]
        entries = np.stack([1 - above, above], 2).astype(np.float32)
        X = sp.csr_array(
            (entries.ravel(), columns.ravel(), np.arange(0, 2 * n * d + 1, 2 * d)), shape=(n, d * T)
        )
        continued = np.arange(d * T) % T > 0 if kind == "sums" else None
        if kind == "matrix":
            hats = X.toarray().reshape(n, d, T)
            X = (np.cumsum(hats[:, :, ::-1], 2)[:, :, ::-1] - np.float32(0.5)).reshape(n, d * T)
    units = [X.shape[1], *hidden, 1]
    net = make_net(units, "relu", None, "log_loss")
    theta = empty_theta(starts_of(units)[-1], np.float32)
    theta[...] = 0.1 * rng.standard_normal(theta.size)
    data = make_data(X, continued=continued, codes=rng.integers(0, 2, n))
    state = np.zeros((2, theta.size), np.float32)
    trainer = Trainer(net, theta, data, 256, 1, state)
    rule, rows = Rule(ADAM, 1e-3, 1e-4, 0.9, 0.999, 1e-8), rng.permutation(n)
    return lambda: trainer.run_epoch(rows, rule)


def prepare_tabular(classes):
    """Returns ``run()``: CPU seconds for an epoch of 10,000 x 20, and to predict a row.

    Of a plain network and of one of the tabular preset with the same hidden layers, in turn.
    """
    import fastnn

    kind = "Classifier" if classes else "Regressor"
    plain, tabular = (getattr(fastnn, name + kind) for name in ("MLP", "Tabular"))
    rng = np.random.default_rng(0)
    X = rng.standard_normal((10_000, 20), np.float32)
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + rng.standard_normal(len(X), np.float32)
    y = y > 0 if classes else y
    both = dict(random_state=0, n_threads=1)
    hidden = tabular().hidden_layer_sizes
    of_plain = dict(hidden_layer_sizes=hidden, tol=0, n_iter_no_change=10**6)
    makers = {
        "plain": lambda n, members: plain(**both, **of_plain, max_iter=n),
        "tabular": lambda n, members: tabular(members, **both, max_iter=n, validation_fraction=0),
    }
    fitted = {name: make(2, 5).fit(X, y) for name, make in makers.items()}

    def seconds(call):
        started = time.thread_time()
        call()
        return time.thread_time() - started

    def epoch(make):
        few, many = (seconds(lambda n=n: make(n, 1).fit(X, y)) for n in (2, 12))
        return (many - few) / 10

    def run():
        epochs = {name: epoch(make) for name, make in makers.items()}
        row = {
            name: seconds(lambda m=model: [m.predict(X[:1]) for _ in range(100)]) / 100
            for name, model in fitted.items()
        }
        return epochs, row

    return run
