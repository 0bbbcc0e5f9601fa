"""
A forecast with its uncertainty
===============================

Three quantiles from one network: the median, and an interval in which 90 % of all values lie. The
noise grows from left to right, and so does the interval. The quantiles never cross.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastnn import MLPRegressor

rng = np.random.default_rng(0)
x = np.sort(rng.uniform(0, 10, 1500))
y = np.sin(x) + 0.1 * (1 + x) * rng.standard_normal(len(x))

warnings.simplefilter("ignore", ConvergenceWarning)  # all 150 epochs of the schedule are wanted
model = MLPRegressor(
    "quantile",
    (64, 64),
    quantile=[0.05, 0.5, 0.95],
    activation="silu",
    standardize=True,
    standardize_target=True,
    learning_rate="cosine",
    learning_rate_init=0.01,
    max_iter=150,
    n_iter_no_change=150,
    random_state=0,
).fit(x[:, None], y)
low, middle, high = model.predict(x[:, None]).T

fig, ax = plt.subplots()
ax.plot(x, y, ".", color="0.7", markersize=3, label="data")
ax.fill_between(x, low, high, alpha=0.3, label="90 % interval")
ax.plot(x, middle, label="median")
ax.plot(x, np.sin(x), "k--", linewidth=1, label="truth")
ax.set(xlabel="x", ylabel="y", title=f"{np.mean((low < y) & (y < high)):.1%} of the data inside")
ax.legend(loc="upper left")
