"""Saved models: skops with no trust beyond fastnn, and damaged files that are errors at most."""

import io
import pickle
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_digits

import fastnn
from fastnn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:200] / 16, Y[:200]
SETTINGS = dict(hidden_layer_sizes=(6,), max_iter=3)


def by_skops(model):
    saved = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=saved)
    assert types and all(name.startswith("fastnn.") for name in types), types
    return skops.io.loads(saved, trusted=types)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


each_way = pytest.mark.parametrize("copied", [by_skops, by_pickle, by_joblib])


def arrays(model):
    return [*model.coefs_, *model.intercepts_]


def assert_same(first, second):
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)


@each_way
@pytest.mark.parametrize(
    "model, y",
    [
        (MLPClassifier(**SETTINGS), Y),
        (MLPClassifier(**SETTINGS, random_state=np.random.RandomState(1)), Y > 4),
        (MLPClassifier(**SETTINGS, standardize=True), np.eye(10, dtype=int)[Y]),
        (MLPClassifier(**SETTINGS, early_stopping=True), Y.astype(str)),
        (MLPRegressor(**SETTINGS, standardize=True, standardize_target=True), Y * 1.0),
        (MLPRegressor(**SETTINGS, solver="lbfgs"), X[:, 20:23]),
    ],
    ids=["classes", "two classes", "labels", "text", "standardised", "outputs"],
)
def test_a_copy_predicts_the_same(copied, model, y):
    model.fit(X, y)
    copy = copied(model)
    assert_same(copy, model)
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))


@each_way
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        *(dict(solver=s) for s in ("adam", "sgd", "adamw", "nadam", "rmsprop", "adagrad")),
        dict(learning_rate="cosine", dropout=0.2),
        dict(solver="sgd", learning_rate="invscaling", standardize=True),
        dict(solver="sgd", learning_rate="adaptive", nesterovs_momentum=False),
    ],
    ids=str,
)
def test_partial_fit_goes_on_to_the_bit(copied, settings, stream):
    state = np.random.RandomState(3) if stream else 3
    model = MLPClassifier(**SETTINGS, **settings, random_state=state)
    for _ in range(3):
        model.partial_fit(X, Y, classes=np.arange(10))
    copy = copied(model)
    for _ in range(3):
        model.partial_fit(X, Y)
        copy = copied(copy).partial_fit(X, Y)
    assert_same(copy, model)
    assert copy.loss_curve_ == model.loss_curve_


@each_way
def test_warm_start_goes_on_to_the_bit(copied):
    model = MLPClassifier(**SETTINGS, warm_start=True, random_state=np.random.RandomState(3))
    copy = copied(model.fit(X, Y))
    assert_same(copy.fit(X, Y), model.fit(X, Y))


DAMAGED = """
import io, pickle, random, sys, warnings, zipfile
import joblib, numpy as np, skops.io
from sklearn.datasets import load_digits
warnings.simplefilter("ignore")
X, y = load_digits(return_X_y=True)
X, y = X[:200] / 16, y[:200]
saved = open(sys.argv[1], "rb").read()

def load(way, content):
    if way == "pickle":
        return pickle.loads(content)
    if way == "joblib":
        return joblib.load(io.BytesIO(content))
    return skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))

def damage(content, i):
    # Bytes cut off or written over.
    content = bytearray(content)
    if i % 4 == 0:
        del content[draw.randrange(len(content)) :]
    for _ in range(1 + i % 3):
        if content:
            content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)

def damage_member(content, i):
    # One member, packed again with right checksums, which would give the damage away. In the schema
    # it is a digit: of numbers, shapes and names of members.
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    schema, file = "schema.json", io.BytesIO()
    if i % 2:
        text = bytearray(members[schema])
        digits = [j for j, byte in enumerate(text) if 48 <= byte < 58]
        text[draw.choice(digits)] = draw.choice(b"0123456789-.")
        members[schema] = bytes(text)
    else:
        name = draw.choice(sorted(set(members) - {schema}))
        members[name] = damage(members[name], i // 2)
    with zipfile.ZipFile(file, "w") as saved:
        for name in members:
            saved.writestr(name, members[name])
    return file.getvalue()

draw, errors = random.Random(0), 0
for i in range(100):
    content = (damage_member if sys.argv[2] == "skops members" else damage)(saved, i)
    try:
        model = load(sys.argv[2], content)
        model.predict(X)
        model.partial_fit(X, y)
    except (MemoryError, Exception):
        errors += 1
print(errors)
"""


@pytest.mark.parametrize(
    "way",
    [
        "pickle",
        pytest.param("joblib", marks=pytest.mark.nightly),
        pytest.param("skops", marks=pytest.mark.nightly),
        pytest.param("skops members", marks=pytest.mark.nightly),
    ],
)
def test_damaged_files_are_errors_at_most(way, tmp_path, run_python):
    model = MLPClassifier(**SETTINGS, random_state=0).partial_fit(X, Y, classes=np.arange(10))
    path = tmp_path / "model"
    if way == "pickle":
        path.write_bytes(pickle.dumps(model))
    elif way == "joblib":
        joblib.dump(model, path)
    else:
        path.write_bytes(skops.io.dumps(model))
    result = run_python("-c", DAMAGED, path, way, timeout=200)
    assert int(result.stdout) > 20


def test_a_model_of_an_older_version_loads_and_goes_on():
    """Saved before dropout, standardize and others were parameters; the X of its training."""
    with open(Path(__file__).parent / "data" / "before_dropout.pkl", "rb") as file:
        saved = pickle.load(file)
    model, some = saved["model"], X.astype(np.float32)
    assert model.dropout == 0.0
    np.testing.assert_allclose(model.predict_proba(some[:5]), saved["predict_proba"], rtol=1e-5)
    model.partial_fit(some, Y)
    np.testing.assert_allclose(model.predict_proba(some[:5]), saved["after_partial_fit"], rtol=1e-4)


def test_fastnn_itself_does_not_pickle():
    for path in Path(fastnn.__file__).parent.rglob("*.py"):
        if path.name == "_disk_cache.py":
            continue  # reads what the same process has written to a file without a name
        assert not re.search(r"import (pickle|joblib\.(dump|load))|pickle\.", path.read_text())
