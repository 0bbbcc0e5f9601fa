"""A naive network in NumPy that follows the notes line by line: one example, one unit at a time.

The specification that the kernels are held against. Where the notes are wrong (design decision:
the sign of dC/dy_hat, the second sigma' in dz/dtheta, the missing step for hidden units) this
follows the chain rule, and tests/test_network.py holds it against finite differences.

Theta is a list; Theta[l] has shape (N_{l+1}, N_l + 1), the bias in column 0, as in the notes.
"""

import math

import numpy as np


def linear(z):
    return z


def logistic(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return max(0.0, z)


def exp(z):
    return np.exp(z)


def softplus(z):
    return np.log(1 + np.exp(z))


def normal(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


def normal_gate(z):
    return np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)


LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772  # of SELU

SIGMA = {
    "identity": linear,
    "linear": linear,
    "logistic": logistic,
    "tanh": np.tanh,
    "relu": relu,
    "exp": exp,
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "elu": lambda z: z if z > 0 else np.exp(z) - 1,
    "selu": lambda z: LAMBDA * (z if z > 0 else ALPHA * (np.exp(z) - 1)),
    "gelu_erf": lambda z: z * normal(z),
    "gelu": lambda z: z / 2 * (1 + np.tanh(normal_gate(z))),
    "silu": lambda z: z * logistic(z),
    "softplus": softplus,
}
SLOPE = {
    "identity": lambda z: 1.0,
    "linear": lambda z: 1.0,
    "logistic": lambda z: logistic(z) * (1 - logistic(z)),
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "relu": lambda z: 1.0 if z > 0 else 0.0,
    "exp": np.exp,
    "leaky_relu": lambda z: 1.0 if z > 0 else 0.01,
    "elu": lambda z: 1.0 if z > 0 else np.exp(z),
    "selu": lambda z: LAMBDA * (1.0 if z > 0 else ALPHA * np.exp(z)),
    "gelu_erf": lambda z: normal(z) + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
    "gelu": lambda z: (
        (1 + np.tanh(normal_gate(z))) / 2
        + z / 2 * (1 - np.tanh(normal_gate(z)) ** 2) * np.sqrt(2 / np.pi) * (1 + 0.134145 * z**2)
    ),
    "silu": lambda z: logistic(z) * (1 + z * (1 - logistic(z))),
    "softplus": logistic,
}


def softmax(i, z):
    return np.exp(z[i]) / sum(np.exp(z_j) for z_j in z)


def feedforward(Theta, activations, x):
    """z and a of every layer; a[0] is the input."""
    a, z = [np.asarray(x, float)], [None]
    for theta, activation in zip(Theta, activations, strict=True):
        with_bias = np.concatenate(([1.0], a[-1]))
        z.append(np.array([sum(theta_k * with_bias) for theta_k in theta]))
        if activation == "softmax":
            a.append(np.array([softmax(k, z[-1]) for k in range(len(z[-1]))]))
        else:
            a.append(np.array([SIGMA[activation](z_k) for z_k in z[-1]]))
    return z, a


def _squared_error(y, p):
    return (y - p) ** 2 / 2


def _huber(y, p):
    r = abs(y - p)
    return r**2 / 2 if r <= 0.7 else 0.7 * (r - 0.35)


def _log_loss(y, p):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


# C and dC/dy_hat of one output; a network's C is their sum.
ERROR = {
    "squared_error": _squared_error,
    "rss": lambda y, p: (y - p) ** 2,
    "absolute_error": lambda y, p: abs(y - p),
    "huber": _huber,
    "quantile": lambda y, p: 0.3 * (y - p) if y > p else 0.7 * (p - y),
    "poisson": lambda y, p: (y * np.log(y / p) if y else 0) - y + p,
    "gamma": lambda y, p: np.log(p / y) + y / p - 1,
    "log_loss": _log_loss,
    "cross_entropy": lambda y, p: -y * np.log(p),
}
ERROR_DERIVATIVE = {
    "squared_error": lambda y, p: p - y,
    "rss": lambda y, p: 2 * (p - y),
    "absolute_error": lambda y, p: np.sign(p - y),
    "huber": lambda y, p: np.clip(p - y, -0.7, 0.7),
    "quantile": lambda y, p: -0.3 if y > p else 0.7,
    "poisson": lambda y, p: 1 - y / p,
    "gamma": lambda y, p: 1 / p - y / p**2,
    "log_loss": lambda y, p: (1 - y) / (1 - p) - y / p,
    "cross_entropy": lambda y, p: -y / p,
}


def error(loss, y, y_hat):
    """C of one example."""
    return sum(ERROR[loss](y_k, p_k) for y_k, p_k in zip(y, y_hat, strict=True))


def error_derivative(loss, y, y_hat):
    """dC/dy_hat of one example."""
    return [ERROR_DERIVATIVE[loss](y_k, p_k) for y_k, p_k in zip(y, y_hat, strict=True)]


def backpropagate(Theta, activations, loss, x, y):
    """dC/dTheta of one example."""
    z, a = feedforward(Theta, activations, x)
    dC_da = error_derivative(loss, y, a[-1])
    gradient = [np.zeros_like(theta) for theta in Theta]
    for l in reversed(range(len(Theta))):
        n_units = len(z[l + 1])
        dC_dz = np.zeros(n_units)
        for k in range(n_units):
            if activations[l] == "softmax":
                # da_i/dz_k = a_i (delta_ik - a_k): every output depends on every input.
                dC_dz[k] = sum(
                    dC_da[i] * a[l + 1][i] * ((i == k) - a[l + 1][k]) for i in range(n_units)
                )
            else:
                dC_dz[k] = dC_da[k] * SLOPE[activations[l]](z[l + 1][k])
            gradient[l][k, 0] = dC_dz[k]
            for j in range(len(a[l])):
                gradient[l][k, j + 1] = dC_dz[k] * a[l][j]
        dC_da = np.array(
            [sum(dC_dz[k] * Theta[l][k, j + 1] for k in range(n_units)) for j in range(len(a[l]))]
        )
    return gradient


def batch_gradient(Theta, activations, loss, X, Y, weight, alpha):
    """Weighted average of the examples' gradients, with the penalty of the weights."""
    total = [np.zeros_like(theta) for theta in Theta]
    for x, y, w in zip(X, Y, weight, strict=True):
        for sum_, part in zip(total, backpropagate(Theta, activations, loss, x, y), strict=True):
            sum_ += w * part
    for sum_, theta in zip(total, Theta, strict=True):
        sum_[:, 1:] += alpha * theta[:, 1:]
        sum_ /= np.sum(weight)
    return total


def batch_error(Theta, activations, loss, X, Y, weight, alpha):
    """Weighted average of the examples' errors, with the penalty of the weights."""
    C = sum(
        w * error(loss, y, feedforward(Theta, activations, x)[1][-1])
        for x, y, w in zip(X, Y, weight, strict=True)
    )
    penalty = alpha / 2 * sum((theta[:, 1:] ** 2).sum() for theta in Theta)
    return (C + penalty) / np.sum(weight)


class GradientDescent:
    """theta <- theta - eta dC/dtheta, with momentum if given."""

    def __init__(self, eta, momentum=0.0, nesterov=False):
        self.eta, self.momentum, self.nesterov, self.v = eta, momentum, nesterov, None

    def step(self, Theta, gradient):
        if self.v is None:
            self.v = [np.zeros_like(theta) for theta in Theta]
        for l, g in enumerate(gradient):
            self.v[l] = self.momentum * self.v[l] - self.eta * g
            Theta[l] += self.momentum * self.v[l] - self.eta * g if self.nesterov else self.v[l]


class Adam:
    """Kingma and Ba (2015), section 2, epsilon outside the correction."""

    def __init__(self, eta, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.eta, self.beta_1, self.beta_2, self.epsilon = eta, beta_1, beta_2, epsilon
        self.m = self.v = None
        self.t = 0

    def step(self, Theta, gradient):
        if self.m is None:
            self.m = [np.zeros_like(theta) for theta in Theta]
            self.v = [np.zeros_like(theta) for theta in Theta]
        self.t += 1
        eta = self.eta * np.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)
        for l, g in enumerate(gradient):
            self.m[l] = self.beta_1 * self.m[l] + (1 - self.beta_1) * g
            self.v[l] = self.beta_2 * self.v[l] + (1 - self.beta_2) * g * g
            Theta[l] -= eta * self.m[l] / (np.sqrt(self.v[l]) + self.epsilon)
