"""Speed of single kernels on one thread, each checked against NumPy before it is timed."""

import numpy as np
import pytest

from .cases import ALPHA, LEARNING_RATE
from .kernel_calls import BETA_1, BETA_2, EPSILON, activate, adam, product
from .report import note

# Examples in a batch, inputs and outputs of a layer.
LAYERS = [
    (1, 20, 100),
    (32, 64, 64),
    (200, 20, 100),
    (256, 54, 256),
    (256, 512, 10),
    (256, 512, 512),
    (256, 784, 512),
]
BLOCK = (256, 512)

each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda sizes: "x".join(map(str, sizes)))
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(dtype, *shape):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def tolerance(dtype):
    return 1e3 * np.finfo(dtype).eps


def time_product(benchmark, A, B):
    C = np.empty((A.shape[0], B.shape[1]), A.dtype)
    multiply = product(C, A, B)
    multiply()
    np.testing.assert_allclose(C, A @ B, rtol=tolerance(A.dtype), atol=tolerance(A.dtype))
    benchmark(multiply)
    note(benchmark, flops=2 * C.size * A.shape[1])


@each_dtype
@each_layer
def test_forward(benchmark, layer, dtype):
    """Z = A W."""
    m, n_in, n_out = layer
    time_product(benchmark, draw(dtype, m, n_in), draw(dtype, n_in, n_out))


@each_dtype
@each_layer
def test_backward(benchmark, layer, dtype):
    """dA = D W^T, from a transposed copy of W."""
    m, n_in, n_out = layer
    time_product(benchmark, draw(dtype, m, n_out), draw(dtype, n_out, n_in))


@each_dtype
@each_layer
def test_gradient(benchmark, layer, dtype):
    """dW = A^T D."""
    m, n_in, n_out = layer
    time_product(benchmark, draw(dtype, m, n_in).T, draw(dtype, m, n_out))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


FUNCTIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "exp": np.exp,
    "tanh": np.tanh,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
}


def time_activation(benchmark, name, z, expected):
    a = z.copy()
    activate(name, a)
    np.testing.assert_allclose(a, expected, rtol=tolerance(z.dtype), atol=tolerance(z.dtype))

    def restore():
        a[...] = z

    benchmark.pedantic(activate, (name, a), setup=restore, rounds=300)
    note(benchmark, examples=len(z))


@each_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation(benchmark, name, dtype):
    z = draw(dtype, *BLOCK)
    time_activation(benchmark, name, z, FUNCTIONS[name](z))


@each_dtype
@pytest.mark.parametrize("n_classes", [3, 10, 1000])
def test_softmax(benchmark, n_classes, dtype):
    z = draw(dtype, 256, n_classes)
    time_activation(benchmark, "softmax", z, softmax(z))


@each_dtype
@pytest.mark.parametrize("n_weights", [2_100, 263_000])
def test_adam(benchmark, n_weights, dtype):
    w, g = draw(dtype, 2, n_weights)
    state = np.zeros((2, n_weights), dtype)
    penalized = g + ALPHA * w
    m, v = (1 - BETA_1) * penalized, (1 - BETA_2) * penalized**2
    rate = LEARNING_RATE * np.sqrt(1 - BETA_2) / (1 - BETA_1)
    expected = w - rate * m / (np.sqrt(v) + EPSILON)
    adam(w, g, state, 1)
    np.testing.assert_allclose(w, expected, rtol=tolerance(dtype), atol=tolerance(dtype))
    np.testing.assert_allclose(state, [m, v], rtol=tolerance(dtype), atol=tolerance(dtype))
    benchmark(adam, w, g, state, 2)
    # Per weight: penalty 2, scale 1, moments 3 and 4, step 5.
    note(benchmark, flops=15 * n_weights)
