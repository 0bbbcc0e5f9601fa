"""Derivatives and solvers against automatic differentiation (JAX) and optax, in float64.

The networks here share no line with fastnn or tests/reference.py: JAX's own functions where it has
them, and derivatives that JAX finds on its own.
"""

import itertools

import numpy as np
import pytest

import grids
from fastnn import Network, backpropagation
from fastnn._network import make_data, make_net
from fastnn._trainer import Trainer
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.rules import ADAGRAD, ADAM, ADAMW, NADAM, NESTEROV, RMSPROP, SGD, Rule

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)  # which take longer than all that runs
jnp = jax.numpy

SIGMA = {
    "identity": lambda z: z,
    "linear": lambda z: z,
    ("linear", 0.7): lambda z: 0.7 * z,
    "logistic": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "exp": jnp.exp,
    "softmax": jax.nn.softmax,
    "leaky_relu": jax.nn.leaky_relu,
    ("leaky_relu", 0.2): lambda z: jax.nn.leaky_relu(z, 0.2),
    "elu": jax.nn.elu,
    ("elu", 0.5): lambda z: jax.nn.elu(z, 0.5),
    "selu": jax.nn.selu,
    "gelu": lambda z: jax.nn.gelu(z, approximate=True),
    "gelu_erf": lambda z: jax.nn.gelu(z, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}


def pinball(y, a, q):
    return jnp.where(y > a, q * (y - a), (1 - q) * (a - y))


ERROR = {
    "squared_error": lambda y, a: (y - a) ** 2 / 2,
    "rss": lambda y, a: (y - a) ** 2,
    "huber": lambda y, a: jnp.where(abs(y - a) <= 0.7, (y - a) ** 2 / 2, 0.7 * abs(y - a) - 0.245),
    "absolute_error": lambda y, a: abs(y - a),
    "quantile": lambda y, a: pinball(y, a, jnp.array([0.1, 0.5, 0.8])),
    "poisson": lambda y, a: jax.scipy.special.xlogy(y, y / a) - y + a,
    "gamma": lambda y, a: jnp.log(a / y) + y / a - 1,
    "log_loss": lambda y, a: -y * jnp.log(a) - (1 - y) * jnp.log1p(-a),
    "cross_entropy": lambda y, a: -y * jnp.log(a),
}
# Loss, output activation, part of the target that is spread.
KINDS = [
    *[(loss, "identity", 0) for loss in ("squared_error", "rss", "huber")],
    *[(loss, "identity", 0) for loss in ("absolute_error", "quantile")],
    ("squared_error", "softmax", 0),
    ("squared_error", ("linear", 0.7), 0),
    ("rss", "tanh", 0),
    ("huber", "logistic", 0),
    ("absolute_error", "relu", 0),
    ("quantile", "softplus", 0),
    ("poisson", "exp", 0),
    ("poisson", "softplus", 0),
    ("gamma", "exp", 0),
    ("gamma", "softplus", 0),
    ("log_loss", "logistic", 0),
    ("log_loss", "logistic", 0.2),
    ("cross_entropy", "softmax", 0),
    ("cross_entropy", "softmax", 0.2),
]
HIDDEN = [function for function in SIGMA if function not in ("exp", "softmax")]
UNITS, N = [4, 5, 3, 3], 6


def error_of_one(Theta, shifts, x, y, functions, loss):
    """C of one example. ``shifts``: what is added to each z and a, to differentiate by."""
    a = x + shifts["a"][0]
    for l, (theta, function) in enumerate(zip(Theta, functions, strict=True)):
        z = theta[:, 0] + theta[:, 1:] @ a + shifts["z"][l]
        a = SIGMA[function](z) + shifts["a"][l + 1]
    return ERROR[loss](y, a).sum()


def zeros():
    return {"z": [jnp.zeros(n) for n in UNITS[1:]], "a": [jnp.zeros(n) for n in UNITS]}


def problem(loss, smoothing, seed=0):
    """Theta, X, y for fastnn, targets for JAX, weights."""
    rng = np.random.default_rng(seed)
    Theta = [rng.standard_normal((m, n + 1)) / 2 for n, m in itertools.pairwise(UNITS)]
    X, weight = rng.standard_normal((N, UNITS[0])), rng.uniform(0.5, 2, N)
    if loss == "cross_entropy":
        y = rng.integers(0, UNITS[-1], N)
        target = np.eye(UNITS[-1])[y] * (1 - smoothing) + smoothing / UNITS[-1]
    elif loss == "log_loss":
        y = rng.integers(0, 2, (N, UNITS[-1])).astype(float)
        target = y * (1 - smoothing) + smoothing / 2
    elif loss in ("poisson", "gamma"):
        y = target = rng.poisson(2, (N, UNITS[-1])) + float(loss == "gamma")
    else:
        y = target = rng.standard_normal((N, UNITS[-1]))
    return Theta, X, y, target, weight


def to_flat(Theta):
    return np.concatenate([np.ravel(theta.T) for theta in Theta])


@pytest.fixture(scope="module")
def largest(request):
    """The largest relative deviation of each kind, printed at the end."""
    deviations = {}
    yield deviations
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\nlargest relative deviation from JAX and optax:")
        for name, value in deviations.items():
            print(f"    {value:.1e}  {name}")


def compare(largest, name, actual, expected, rtol=1e-9):
    """Relative, for numbers below 0.001 to that."""
    expected = np.asarray(expected)
    deviation = np.abs(actual - expected) / np.maximum(np.abs(expected), 1e-3)
    largest[name] = max(largest.get(name, 0.0), deviation.max())
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-3 * rtol, err_msg=name)


ALL = list(itertools.product(HIDDEN, KINDS))
# Slope and loss are separate factors of a derivative: each of them once, all pairs at night.
SOME = grids.nightly_but(ALL, grids.covering(ALL, 1))


@pytest.mark.parametrize("function, kind", SOME, ids=str)
def test_derivatives(function, kind, largest):
    loss, last, smoothing = kind
    functions = [function, function, last]
    Theta, X, y, target, weight = problem(loss, smoothing)

    def derivatives(x, t):
        return jax.value_and_grad(error_of_one, (0, 1))(Theta, zeros(), x, t, functions, loss)

    # One compilation, instead of one for each operation.
    by_example = jax.jit(jax.vmap(derivatives))
    C, (dTheta, shifts) = by_example(X, target)
    settings = {"label_smoothing": smoothing, "huber_delta": 0.7, "quantile": [0.1, 0.5, 0.8]}
    network = Network(Theta, functions, loss, **settings)
    codes, targets = (y, None) if loss == "cross_entropy" else (None, y)
    settings = {"smoothing": smoothing}
    if loss == "huber":
        settings["bend"] = 0.7
    elif loss == "quantile":
        settings["quantiles"] = [0.1, 0.5, 0.8]
    net = make_net(UNITS, functions[:-1], last, loss, **settings)
    theta = to_flat(Theta)
    for w in (None, weight):
        factor = np.ones(N) if w is None else w
        found = backpropagation(network, X, y, w)
        compare(largest, "C", found.C, factor * C)
        for l in range(3):
            expected = factor[:, None, None] * dTheta[l]
            compare(largest, "dC/dTheta", found.dC_dTheta[l], expected)
            compare(largest, "dC/dz", found.dC_dz[l + 1], factor[:, None] * shifts["z"][l])
        for l in range(4):
            compare(largest, "dC/da", found.dC_da[l], factor[:, None] * shifts["a"][l])
        data = make_data(X, codes=codes, targets=targets, weights=w)
        with Trainer(net, theta.copy(), data, N, 1) as trainer:
            _, gradient = trainer.loss_and_gradient(theta, np.arange(N), 0.3)
        total = [np.tensordot(factor, part, 1) for part in dTheta]
        for part, matrix in zip(total, Theta, strict=True):
            part[:, 1:] += 0.3 * matrix[:, 1:]
        expected = to_flat(total) / factor.sum()
        compare(largest, "gradient of the training kernel", gradient, expected)


def test_every_activation_and_loss_is_here():
    assert {f for f in SIGMA if isinstance(f, str)} == set(ACTIVATIONS) - {"step"}
    assert set(ERROR) == {loss for loss, *_ in KINDS}


ETA, ALPHA, B1, B2, TINY, EPSILON, STEPS = 0.03, 0.05, 0.9, 0.99, 1e-30, 1e-3, 50
WEIGHTS = [{"b": False, "W": True}] * 3  # which decay

# Code, momentum or beta_1, beta_2, epsilon, more; and the same of optax. With Adam, optax adds
# epsilon to the root of the corrected moment, with Adagrad under the root, fastnn to the root of
# the moment as it is: there it is next to nothing, elsewhere large enough to be seen.
SOLVERS = {
    "sgd": ((SGD, 0.0, 0.0, 0.0), {}, lambda o: o.sgd(ETA)),
    "momentum": ((SGD, B1, 0.0, 0.0), {}, lambda o: o.sgd(ETA, B1)),
    "nesterov": ((NESTEROV, B1, 0.0, 0.0), {}, lambda o: o.sgd(ETA, B1, nesterov=True)),
    "adam": ((ADAM, B1, B2, TINY), {}, lambda o: o.adam(ETA, B1, B2, TINY)),
    "adamw": (
        (ADAMW, B1, B2, EPSILON),
        {"weight_decay": 0.1},
        lambda o: o.adamw(
            ETA, B1, B2, EPSILON, weight_decay=0.1, mask=[{"b": False, "W": True}] * 3
        ),
    ),
    "nadam": ((NADAM, B1, B2, EPSILON), {}, lambda o: o.nadam(ETA, B1, B2, EPSILON)),
    "rmsprop": (
        (RMSPROP, B1, B2, EPSILON),
        {},
        lambda o: o.rmsprop(ETA, B2, EPSILON, eps_in_sqrt=False),
    ),
    "adagrad": ((ADAGRAD, B1, B2, TINY), {}, lambda o: o.adagrad(ETA, 0.0, TINY)),
    "clipped sgd": (
        (SGD, B1, 0.0, 0.0),
        {"clip_norm": 0.2},
        lambda o: o.chain(o.clip_by_global_norm(0.2), o.sgd(ETA, B1)),
    ),
    "clipped adam": (
        (ADAM, B1, B2, TINY),
        {"clip_norm": 0.2},
        lambda o: o.chain(o.clip_by_global_norm(0.2), o.adam(ETA, B1, B2, TINY)),
    ),
}


# The first four also have tests/reference.py to follow.
EACH_TIME = ["adamw", "nadam", "rmsprop", "adagrad", "clipped adam"]


FUNCTIONS = ["tanh", "gelu", "softmax"]


@pytest.fixture(scope="module")
def slope():
    """``slope(layers, rows)``: the gradient for these rows, compiled once for all solvers."""
    _, *arrays = problem("cross_entropy", 0.0)
    X, _, target, weight = map(jnp.asarray, arrays)

    def mean_error(layers, rows):
        Theta = [jnp.column_stack([layer["b"], layer["W"]]) for layer in layers]
        C = jax.vmap(lambda x, t: error_of_one(Theta, zeros(), x, t, FUNCTIONS, "cross_entropy"))
        penalty = ALPHA / 2 * sum((layer["W"] ** 2).sum() for layer in layers)
        return (C(X[rows], target[rows]) @ weight[rows] + penalty) / weight[rows].sum()

    return jax.jit(jax.grad(mean_error))


@pytest.mark.parametrize(
    "solver, batch_size",
    [
        pytest.param(
            solver, size, marks=() if solver in EACH_TIME and size == 4 else pytest.mark.nightly
        )
        for solver in SOLVERS
        for size in (N, 4)
    ],
)
def test_solvers_follow_the_path_of_optax(solver, batch_size, slope, largest):
    optax = pytest.importorskip("optax")
    constants, more, make = SOLVERS[solver]
    Theta, X, y, _, weight = problem("cross_entropy", 0.0)
    net = make_net(UNITS, FUNCTIONS[:-1], FUNCTIONS[-1], "cross_entropy")
    theta = to_flat(Theta)
    layers = [{"b": jnp.array(t[:, 0]), "W": jnp.array(t[:, 1:])} for t in Theta]
    optimizer = make(optax)
    state, step = optimizer.init(layers), jax.jit(optimizer.update)
    code, *rest = constants
    rule = Rule(code, ETA, ALPHA, *rest, **more)
    data = make_data(X, codes=y, weights=weight)
    batches = np.split(np.arange(N), range(batch_size, N, batch_size))
    if "clip_norm" in more:
        assert optax.tree.norm(slope(layers, np.arange(N))) > more["clip_norm"]
    with Trainer(net, theta, data, batch_size, 1, np.zeros((2, theta.size))) as trainer:
        for _ in range(STEPS // len(batches)):
            trainer.run_epoch(np.arange(N), rule)
            for rows in batches:
                updates, state = step(slope(layers, rows), state, layers)
                layers = optax.apply_updates(layers, updates)
        assert trainer.updates == STEPS
    expected = to_flat([np.column_stack([layer["b"], layer["W"]]) for layer in layers])
    assert abs(expected - to_flat(Theta)).max() > 0.05  # they have moved
    compare(largest, f"weights after {STEPS} steps", theta, expected, rtol=1e-6)
