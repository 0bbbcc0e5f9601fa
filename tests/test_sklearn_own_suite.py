"""scikit-learn's own tests of its MLPs, from the installed package, run on fastnn's classes."""

import importlib.util
import sys
from pathlib import Path

import pytest
import sklearn.neural_network

import fastnn

# Tests of what is scikit-learn's alone: private methods, and words that would mislead.
PRIVATE = {
    "test_gradient": "calls _loss_grad_lbfgs; tests/test_network.py does the same for fastnn",
    "test_early_stopping_stratified": "calls class 1 of y 'True'; see tests/test_bad_input.py",
}


def load():
    path = Path(sklearn.neural_network.__file__).parent / "tests" / "test_mlp.py"
    spec = importlib.util.spec_from_file_location("sklearn_test_mlp", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    originals = sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor
    sklearn.neural_network.MLPClassifier = fastnn.MLPClassifier
    sklearn.neural_network.MLPRegressor = fastnn.MLPRegressor
    try:
        spec.loader.exec_module(module)
    finally:
        sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor = originals
    return module


suite = load()
assert suite.MLPClassifier is fastnn.MLPClassifier


@pytest.fixture
def global_random_seed():
    """scikit-learn's conftest provides it, with this default."""
    return 42


for _name, _test in list(vars(suite).items()):
    if _name.startswith("test_") and _name not in PRIVATE:
        globals()[_name] = _test


def test_private_tests_exist():
    """A name in PRIVATE that scikit-learn no longer has would hide nothing: keep the list true."""
    assert all(hasattr(suite, name) for name in PRIVATE)
