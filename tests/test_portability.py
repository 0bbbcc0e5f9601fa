"""Other x86 machines, without AVX-512 or AVX: kernel tests pass, results agree within bounds."""

import platform

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="describes x86 processors"
)

# float64 for ten epochs, where rounding has not yet grown; float32 for one.
START = """
import sys, warnings
import numpy as np
from sklearn.datasets import load_diabetes, load_digits
from fastnn import MLPClassifier, MLPRegressor
from fastnn.kernels.machine import VECTOR_BYTES
warnings.simplefilter("ignore")
X, y = load_digits(return_X_y=True)
X /= 16
"""
PROGRAMS = {
    "float64": START
    + """
model = MLPClassifier(max_iter=10, activation="tanh", random_state=0).fit(X, y)
A, b = load_diabetes(return_X_y=True)
settings = dict(hidden_layer_sizes=(20, 10), activation="gelu", max_iter=10, random_state=0)
line = MLPRegressor(**settings).fit(A, b)
np.savez(sys.argv[1], vector=VECTOR_BYTES, probability=model.predict_proba(X),
         weights=model.coefs_[0], values=line.predict(A))
""",
    "float32": START
    + """
X = X.astype(np.float32)
model = MLPClassifier(max_iter=1, random_state=0).fit(X, y)
np.savez(sys.argv[1], vector=VECTOR_BYTES, probability=model.predict_proba(X))
""",
}
# Largest differences between machines; measured are 2e-14 for float64, 4e-7 for float32.
BOUNDS = {
    "float64": {"probability": 1e-12, "weights": 1e-12, "values": 1e-12},
    "float32": {"probability": 1e-5},
}


@pytest.fixture(scope="session", params=["SSE2", "AVX2"])
def machine(request):
    """Environment of a process that compiles for another machine: (name, environment)."""
    return request.param, request.getfixturevalue(f"{request.param.lower()}_machine")


# Without conftest.py, which would compile more than these tests need. Whether loops became vectors
# is asked of this machine alone.
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest"]
FILES = [f"tests/test_{name}.py" for name in ("elementary", "matmul", "network")]


@pytest.mark.nightly
def test_all_kernel_tests_pass(run_python, machine):
    options = ["-m", "", "-k", "not vectorised"]
    result = run_python(*PYTEST, *FILES, *options, timeout=900, **machine[1])
    assert " passed" in result.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", PROGRAMS)
def test_results_agree(dtype, run_python, machine, tmp_path):
    name, environment = machine
    run_python("-c", PROGRAMS[dtype], tmp_path / "here.npz", timeout=600)
    run_python("-c", PROGRAMS[dtype], tmp_path / "there.npz", timeout=600, **environment)
    here, there = np.load(tmp_path / "here.npz"), np.load(tmp_path / "there.npz")
    assert there["vector"] == {"SSE2": 16, "AVX2": 32}[name]
    for key, bound in BOUNDS[dtype].items():
        scale = np.abs(here[key]).max()
        difference = np.abs(here[key] - there[key]).max() / scale
        print(f"{name} {key}: {difference:.1e}")
        assert difference <= bound, key
