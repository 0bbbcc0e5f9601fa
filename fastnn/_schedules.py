"""Learning-rate schedules: the factor on ``learning_rate_init`` in each of ``max_iter`` epochs.

Epochs count from 0. To add one: its function, and its line in ``SCHEDULES``.
"""

from __future__ import annotations

import math

from ._typing import Schedule


def cosine(epoch: int, max_iter: int) -> float:
    """From 1 towards 0 along half a cosine; the 0 itself would come after the last epoch.

    Loshchilov and Hutter (2017), SGDR: Stochastic Gradient Descent with Warm Restarts.
    """
    return (1 + math.cos(math.pi * epoch / max_iter)) / 2


def one_cycle(epoch: int, max_iter: int) -> float:
    """From 1/25 up to 1 in the first 30 % of the epochs, then down to 1e-4, along half cosines.

    Smith (2018), A Disciplined Approach to Neural Network Hyper-Parameters: Part 1; with cosines
    in place of straight lines, as fastai and PyTorch have it.
    """
    last = max_iter - 1
    peak = round(0.3 * last)
    if epoch < peak:
        return 1 - (1 - 1 / 25) * cosine(epoch, peak)
    return 1e-4 + (1 - 1e-4) * cosine(epoch - peak, max(1, last - peak))


def step(epoch: int, max_iter: int) -> float:
    """Divided by 10 after each third of the epochs.

    He et al. (2016), Deep Residual Learning for Image Recognition, divide by 10 in this way.
    """
    return 0.1 ** (3 * epoch // max_iter)


def warmup(epoch: int, max_iter: int) -> float:
    """Up in equal steps during the first 5 % of the epochs, rounded up, then 1.

    With n such epochs the factors are 1 / (n + 1), ..., n / (n + 1), 1, 1, ... (Goyal et al.,
    2017, Accurate, Large Minibatch SGD).
    """
    n = math.ceil(0.05 * max_iter)
    return min(1.0, (epoch + 1) / (n + 1))


SCHEDULES = {"cosine": cosine, "one_cycle": one_cycle, "step": step, "warmup": warmup}


def rate(
    learning_rate: Schedule, epoch: int, learning_rate_init: float, max_iter: int
) -> float | None:
    """Learning rate of an epoch.

    Parameters
    ----------
    learning_rate : str or callable
        A name in ``SCHEDULES``, or a function from the epoch to the rate itself.
    epoch : int
        From 0. Past ``max_iter``, with ``partial_fit``, a schedule stays where it ended.
    learning_rate_init : float
    max_iter : int

    Returns
    -------
    float or None
        None for schedules that do not depend on the epoch: scikit-learn's.

    Raises
    ------
    ValueError
        If the function returns anything but a finite, positive number.
    """
    if not callable(learning_rate):
        if learning_rate not in SCHEDULES:
            return None
        epoch = min(epoch, max_iter - 1)
        return float(learning_rate_init) * SCHEDULES[learning_rate](epoch, max_iter)
    value = learning_rate(epoch)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(
            f"learning_rate must return a finite number > 0, but for epoch {epoch} it returned "
            f"{value!r}."
        )
    return number
