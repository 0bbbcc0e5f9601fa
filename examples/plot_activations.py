"""
What the activation function does
=================================

The same two half-moons, learnt with four activation functions: units with a bend draw corners,
smooth ones draw curves.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import make_moons
from sklearn.inspection import DecisionBoundaryDisplay

from fastnn import MLPClassifier

X, y = make_moons(400, noise=0.25, random_state=0)
fig, all_axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True)
for ax, activation in zip(all_axes.flat, ("relu", "leaky_relu", "tanh", "silu"), strict=True):
    model = MLPClassifier(
        (16, 16),
        activation,
        learning_rate_init=0.01,
        max_iter=500,
        early_stopping=True,
        scoring="loss",
        n_iter_no_change=50,
        random_state=0,
    ).fit(X, y)
    DecisionBoundaryDisplay.from_estimator(model, X, ax=ax, cmap="RdBu", alpha=0.7, vmin=0, vmax=1)
    ax.scatter(*X.T, c=y, cmap="RdBu", edgecolors="k", s=12, linewidths=0.5)
    ax.set_title(f"{activation}: {model.score(X, y):.0%} right")
fig.tight_layout()
