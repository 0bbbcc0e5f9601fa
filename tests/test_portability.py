"""Levels of x86 machines, and machines without AVX-512 or AVX.

Kernel tests pass there, results agree within bounds.
"""

import pickle
import platform
from itertools import accumulate

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import config, njit

from fastnn.kernels import machine as this_machine
from fastnn.kernels.elementary import exp
from fastnn.kernels.train import losses

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="describes x86 processors"
)

V2, V3, V4 = accumulate(this_machine.LEVELS.values(), "{},{}".format)


@pytest.mark.parametrize(
    ("features", "level"),
    [
        ("", "x86-64"),
        ("+sse2,+avx512f", "x86-64"),
        (V2, "x86-64-v2"),
        (f"{V2},+avx", "x86-64-v2"),
        (V3.replace("+fma", "-fma"), "x86-64-v2"),
        (V3, "x86-64-v3"),
        (f"{V3},+avx512f,+avx512cd", "x86-64-v3"),
        (V4, "x86-64-v4"),
        (f"{V4},+avx512fp16", "x86-64-v4"),
    ],
)
def test_the_level_is_the_highest_that_all_features_allow(features, level, monkeypatch):
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    assert this_machine._machine()[0] == level


def test_kernels_are_compiled_for_the_level_and_functions_of_users_for_their_cpu():
    @njit
    def of_a_user(x):
        return exp(x)

    assert of_a_user(0.0) == 1.0
    (theirs,) = of_a_user.overloads.values()
    assert theirs.codegen.magic_tuple()[1] == (config.CPU_NAME or llvm.get_host_cpu_name())
    (ours,) = losses["float32"].overloads.values()
    assert ours.codegen.magic_tuple()[1] == this_machine.CPU_NAME


# Numba knows the very CPU, or is told of another one of the level.
SAME_LEVEL = """
from numba import config
told = config.CPU_NAME, config.CPU_FEATURES
config.CPU_FEATURES = {features!r}
import fastnn.kernels.cache
config.CPU_NAME, config.CPU_FEATURES = told
from fastnn.kernels.train import _losses, _sample_losses
library = fastnn.kernels.cache.Library("losses")
library.entry(_losses, _sample_losses)
library.prepare("float32")
"""


@pytest.mark.nightly
def test_all_machines_of_a_level_run_the_same_machine_code(run_python, avx2_machine, tmp_path):
    program = SAME_LEVEL.format(features=avx2_machine["NUMBA_CPU_FEATURES"])
    codes = []
    for name, told in (("one", {}), ("other", avx2_machine)):
        folder = tmp_path / name
        # The names of functions hold the order of sets of text.
        environment = {"NUMBA_CACHE_DIR": str(folder), "PYTHONHASHSEED": "0"}
        run_python("-c", program, **told | environment)
        (path,) = folder.rglob("losses_float32_x86-64-v3_*.nbc")
        (_, _, (code, _)), _ = pickle.loads(path.read_bytes()[4:])
        codes.append(code)
    assert codes[0] == codes[1]


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
