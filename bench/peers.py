"""The peers: for each a function that takes a case and returns ``run(epochs)``.

``run`` trains a new network for that many epochs and returns its training loss in each of them. Its
first call compiles and warms up, and is not to be timed. All peers see the same data, shuffle it in
every epoch and do the same updates, last and smaller mini-batch included.

scikit-learn, fastnn
    The whole public ``fit``: validation, encoding of the labels, initialization, loss, L2 penalty.
    Threads as each chooses by itself: scikit-learn's BLAS takes all cores.
PyTorch
    Eager with fused optimizers, rows gathered from a tensor in memory (no DataLoader); one thread
    or one per core, whichever was faster in a short trial. No weight decay. Two classes are two
    outputs and CrossEntropyLoss, which is faster than one output and BCEWithLogitsLoss.
JAX
    A whole epoch in one jitted ``lax.scan`` with donated buffers: its best case. No weight decay.
    Also confined to one core, where it is faster at times.
"""

import importlib.util
import os
import timeit
from collections.abc import Callable
from typing import NamedTuple

import joblib
import numpy as np

from .cases import ALPHA, LEARNING_RATE, initial_weights, make_data

MOMENTUM = 0.9


def parameters(case):
    """The constructor arguments of a case that scikit-learn and fastnn share; no early end."""
    return {
        "hidden_layer_sizes": case.hidden,
        "activation": case.activation,
        "solver": case.solver,
        "alpha": ALPHA,
        "batch_size": case.batch,
        "learning_rate_init": LEARNING_RATE,
        "momentum": MOMENTUM,
        "tol": 0.0,
        "n_iter_no_change": np.inf,
        "random_state": 0,
    }


def _prepare_estimator(make, case):
    X, y = make_data(case)

    def run(epochs):
        model = make(max_iter=epochs, **parameters(case)).fit(X, y)
        return getattr(model, "loss_curve_", [model.loss_])

    return run


def prepare_scikit_learn(case):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return _prepare_estimator(MLPClassifier if case.classes else MLPRegressor, case)


def prepare_fastnn(case):
    from fastnn import MLPClassifier, MLPRegressor

    estimator = MLPClassifier if case.classes else MLPRegressor
    return _prepare_estimator(
        lambda **settings: estimator(n_threads=case.threads, **settings), case
    )


def torch_network(case, weights):
    """The network of a case in PyTorch, with ``weights`` as ``[(W, b), ...]``."""
    import torch

    activation = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "logistic": torch.nn.Sigmoid}
    layers = []
    for W, b in weights:
        linear = torch.nn.utils.skip_init(
            torch.nn.Linear, *W.shape, dtype=getattr(torch, W.dtype.name)
        )
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, activation[case.activation]()]
    return torch.nn.Sequential(*layers[:-1])


def prepare_torch(case):
    import torch

    X, y = make_data(case)
    weights = initial_weights(case, (*case.units[:-1], max(1, case.classes)))
    if case.classes:
        loss_of, scale = torch.nn.CrossEntropyLoss(), 1.0
    else:
        loss_of, scale, y = torch.nn.MSELoss(), 0.5, y[:, None]  # scikit-learn halves the square
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def train(epochs, n=case.n):
        net = torch_network(case, weights)
        if case.solver == "adam":
            optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE, fused=True)
        else:
            optimizer = torch.optim.SGD(
                net.parameters(), LEARNING_RATE, MOMENTUM, nesterov=True, fused=True
            )
        curve = []
        for _ in range(epochs):
            losses = []
            for rows in torch.randperm(n).split(case.batch):
                optimizer.zero_grad()
                loss = loss_of(net(X[rows]), y[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            curve.append(scale * torch.stack(losses).mean().item())
        return curve

    trial = min(case.n, 100 * case.batch)

    def seconds(n_threads):
        torch.set_num_threads(n_threads)
        return min(timeit.repeat(lambda: train(1, trial), number=1, repeat=2))

    best = min({1, joblib.cpu_count()}, key=seconds)

    def run(epochs):
        torch.set_num_threads(best)
        return train(epochs)

    return run


def prepare_jax(case):
    import jax
    import jax.numpy as jnp

    if (case.dtype, case.activation, case.solver) != ("float32", "relu", "adam"):
        raise ValueError("The JAX peer trains float32, ReLU networks with Adam only.")
    X, y = map(jnp.asarray, make_data(case))
    n_full = case.n // case.batch * case.batch
    rng = np.random.default_rng(0)

    def loss(weights, x, target):
        for W, b in weights[:-1]:
            x = jax.nn.relu(x @ W + b)
        W, b = weights[-1]
        z = x @ W + b
        if case.classes == 2:
            return jnp.mean(jax.nn.softplus(z[:, 0]) - target * z[:, 0])
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), target[:, None], 1))

    def epoch(weights, m, v, t, X, y, rows):
        def step(state, batch):
            weights, m, v, t = state
            value, g = jax.value_and_grad(loss)(weights, X[batch], y[batch])
            t = t + 1
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
            rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights = jax.tree.map(
                lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), weights, m, v
            )
            return (weights, m, v, t), value

        batches = rows[:n_full].reshape(-1, case.batch)
        state, losses = jax.lax.scan(step, (weights, m, v, t), batches)
        if n_full < case.n:
            state, _ = step(state, rows[n_full:])
        return *state, losses.mean()

    epoch = jax.jit(epoch, donate_argnums=(0, 1, 2))

    def run(epochs):
        weights = jax.tree.map(jnp.asarray, initial_weights(case, case.units))
        m, v = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
        t = jnp.float32(0)
        curve = []
        for _ in range(epochs):
            rows = rng.permutation(case.n).astype(np.int32)
            weights, m, v, t, value = epoch(weights, m, v, t, X, y, rows)
            curve.append(value)
        jax.block_until_ready((weights, curve))
        return [float(value) for value in curve]

    return run


def prepare_jax_on_one_core(case):
    # XLA sizes its thread pool by the affinity it finds when JAX is first used.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return prepare_jax(case)


class Peer(NamedTuple):
    """A library to compare with."""

    prepare: Callable
    distribution: str
    module: str

    @property
    def installed(self):
        return importlib.util.find_spec(self.module) is not None


PEERS = {
    "fastnn": Peer(prepare_fastnn, "fastnn", "fastnn"),
    "scikit-learn": Peer(prepare_scikit_learn, "scikit-learn", "sklearn"),
    "PyTorch": Peer(prepare_torch, "torch", "torch"),
    "JAX": Peer(prepare_jax, "jax", "jax"),
}
if hasattr(os, "sched_setaffinity"):
    PEERS["JAX 1 core"] = Peer(prepare_jax_on_one_core, "jax", "jax")
