"""The kernels under NUMBA_BOUNDSCHECK=1, and the small ones without the JIT."""

import numpy as np
import pytest

from fastnn._backpropagation import _from_python as callable_from_python
from fastnn.kernels import activations, losses, rules
from fastnn.kernels.activations import ACTIVATIONS, N_CONSTANTS
from fastnn.kernels.losses import LOSSES, loss_constants
from fastnn.kernels.rules import GRADIENT, NESTEROV, SGD, Rule, n_slots

activate = callable_from_python(activations.activate)
multiply_by_slope = callable_from_python(activations.multiply_by_slope)
row_losses = callable_from_python(losses.row_losses)
output_delta = callable_from_python(losses.output_delta)
coefficients = callable_from_python(rules.coefficients)
update = callable_from_python(rules.update)

NO_CONSTANTS = np.zeros(N_CONSTANTS)

each_dtype = pytest.mark.parametrize(
    "T", [pytest.param(np.float32, marks=pytest.mark.nightly), np.float64]
)


# Without conftest.py, which would compile more than these tests need.
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest"]


@pytest.fixture(scope="module")
def bounds_checked(tmp_path_factory):
    """Environment of the mode. Numba's cache does not know it: compiled code must not be shared."""
    cache = tmp_path_factory.mktemp("numba_cache")
    return {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(cache)}


@pytest.mark.nightly
def test_all_kernel_tests_pass_with_bounds_checks(run_python, bounds_checked):
    files = [f"tests/test_{name}.py" for name in ("elementary", "matmul", "network")]
    options = ["-m", "", "-k", "not vectorised"]
    result = run_python(*PYTEST, *files, *options, timeout=900, **bounds_checked)
    assert " passed" in result.stdout


# Row 4 is beyond the data, but not beyond the memory: without checks it is read.
GATHER = """
import numpy as np
from numba import njit
from fastnn._network import make_data
from fastnn.kernels.inputs import gather
from fastnn.kernels.plan import work_for
data = make_data(np.arange(12.0).reshape(6, 2)[:3])
work = work_for([2, 1], np.float64, 1, 1)
arguments = data, np.array([4]), 0, work.a, work.places[0]["width"], work.capacity, 0, 1
njit(lambda *arguments: gather(*arguments))(*arguments)
print(*work.a[1:3])
"""

# Class 4 of the three that the example has outputs for.
ENTRY = """
import numpy as np
from fastnn._network import make_net
from fastnn.kernels.cache import Library
from fastnn.kernels.train import _losses, _sample_losses
losses = Library("losses").entry(_losses, _sample_losses)  # alone it compiles in a few seconds
net = make_net([1, 3], "identity", "softmax", "cross_entropy")
one, three = np.ones(1, np.float32), np.ones(3, np.float32)
losses["float32"](net, one, three, three, 4 * one)
"""

TRAIN = """
import numpy as np
from fastnn._network import make_data, make_net
from fastnn._trainer import Trainer
from fastnn.kernels.rules import GRADIENT, Rule
data = make_data(np.zeros((6, 2))[:3], targets=np.zeros((6, 1))[:3])
net = make_net([2, 1], "relu", "identity", "squared_error")
with Trainer(net, np.zeros(3), data, 1, 1) as trainer:
    trainer.run_epoch(np.array([4]), Rule(GRADIENT, 0.0, 0.0, 0.0, 0.0, 0.0))
"""


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(GATHER, id="leaf"),
        pytest.param(ENTRY, id="cached entry"),
        pytest.param(TRAIN, id="training", marks=pytest.mark.nightly),
    ],
)
def test_an_index_out_of_range_is_an_error_with_bounds_checks(kernel, run_python, bounds_checked):
    result = run_python("-c", kernel, code=1, **bounds_checked)
    assert result.stderr.splitlines()[-1] == "IndexError: index is out of bounds"


def test_a_row_out_of_range_is_read_without_bounds_checks(run_python):
    """The counterpart: it is the mode that finds the error above."""
    result = run_python("-c", GATHER, NUMBA_BOUNDSCHECK="0")
    assert result.stdout.split() == ["8.0", "9.0"], result.stderr


def test_all_modules_can_be_imported_without_jit(run_python):
    run_python(
        "-W",
        "error",
        "-c",
        "import pkgutil, importlib, fastnn.kernels, fastnn.kernels.rules\n"
        "for module in pkgutil.iter_modules(fastnn.kernels.__path__):\n"
        "    importlib.import_module(f'fastnn.kernels.{module.name}')\n"
        "assert not hasattr(fastnn.kernels.rules.update, 'py_func'), 'the JIT is on'\n",
        NUMBA_DISABLE_JIT="1",
    )


def test_small_kernels_work_without_jit(run_python):
    """The tests below, as Python. What is written as LLVM code, like matmul, has no such form."""
    result = run_python(*PYTEST, __file__, "-m", "", "-k", "small_kernel_", NUMBA_DISABLE_JIT="1")
    assert " passed" in result.stdout


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=8 * np.finfo(actual.dtype).eps)


@each_dtype
def test_small_kernel_identity_changes_nothing(T):
    a = np.array([5, -2, 3], T)
    activate(ACTIVATIONS["identity"].code, NO_CONSTANTS, a, 3)
    np.testing.assert_array_equal(a, np.array([5, -2, 3], T))


SLOPES = {
    "identity": np.ones_like,
    "logistic": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a**2,
    "relu": lambda a: a > 0,
}


@each_dtype
@pytest.mark.parametrize("name", SLOPES)
def test_small_kernel_multiply_by_slope(name, T):
    rng = np.random.default_rng(0)
    a, d = rng.uniform(0, 1, 8).astype(T), rng.standard_normal(8).astype(T)
    a[4] = 0
    expected = d.copy()
    expected *= SLOPES[name](a)
    constants = np.zeros(N_CONSTANTS)
    constants[: len(ACTIVATIONS[name].constants)] = ACTIVATIONS[name].constants
    multiply_by_slope(ACTIVATIONS[name].code, constants, d, a, 8)
    close(d, expected)


@each_dtype
def test_small_kernel_slope_of_relu_stops_infinite_deltas(T):
    d = np.array([np.inf, np.inf], T)
    multiply_by_slope(ACTIVATIONS["relu"].code, NO_CONSTANTS, d, np.array([0, 1], T), 2)
    np.testing.assert_array_equal(d, np.array([0, np.inf], T))


@each_dtype
def test_small_kernel_squared_error(T):
    rng = np.random.default_rng(0)
    a, y = rng.standard_normal((2, 4, 3)).astype(T)
    row_loss = np.empty(4, T)
    constants = loss_constants("squared_error", 3)
    code = LOSSES["squared_error"].code
    row_losses(code, constants, row_loss, np.empty(12, T), a.ravel(), y.ravel(), 3)
    close(row_loss, ((y - a) ** 2 / 2).mean(axis=1))


@each_dtype
@pytest.mark.parametrize("loss", LOSSES)
def test_small_kernel_output_delta(loss, T):
    rng = np.random.default_rng(0)
    a, y = rng.uniform(0, 1, (2, 4, 3)).astype(T)
    target = y.ravel()
    if loss == "cross_entropy":
        target = np.array([2, 0, 1, 1], T)
        y = np.eye(3, dtype=T)[target.astype(int)]
    d = np.empty(12, T)
    output_delta(LOSSES[loss].code, loss_constants(loss, 3), d, a.ravel(), target, 3)
    np.testing.assert_array_equal(d, (a - y).ravel())


def naive_update(code, w, g, state, alpha, eta, momentum, total_weight):
    """The table of rules.py in NumPy; returns w and g."""
    complete = (g + alpha * w) / total_weight
    if code == GRADIENT:
        return w, complete
    state[0] = momentum * state[0] - eta * complete
    if code == SGD:
        return w + state[0], g
    return w + momentum * state[0] - eta * complete, g


@each_dtype
@pytest.mark.parametrize("code", [GRADIENT, SGD, NESTEROV], ids=["gradient", "sgd", "nesterov"])
def test_small_kernel_update(code, T):
    rng = np.random.default_rng(0)
    constants = {"learning_rate": 0.1, "momentum": 0.9, "beta_2": 0.99, "epsilon": 1e-8}
    rule = Rule(code, alpha=0.5, **constants)
    w, g = rng.standard_normal((2, 7)).astype(T)
    state = np.zeros((n_slots(code), 7), T)
    wide_w, wide_state = w.astype(float), state.astype(float)
    for t in range(1, 4):
        wide_g = g.astype(float)
        expected = naive_update(
            code, wide_w[2:6], wide_g[2:6], wide_state[:, 2:6], 0.5, 0.1, 0.9, 3.0
        )
        squares = (w[2:6] ** 2).sum(dtype=T)
        wide_w[2:6], wide_g[2:6] = expected
        c = coefficients(rule, t)
        found = update(rule, c, w[2:6], g[2:6], state, 2, 1 / 3.0, False)
        close(np.array(found, T), squares)
        for actual, wide in ((w, wide_w), (g, wide_g), (state, wide_state)):
            np.testing.assert_allclose(actual, wide, rtol=100 * np.finfo(T).eps)
        g = rng.standard_normal(7).astype(T)
