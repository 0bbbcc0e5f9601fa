"""Standardised features and targets, and how they become part of the network afterwards.

Training sees x' = (x - mean) / scale, and y' likewise. Both maps are affine, so a network that
gives y' for x' can be turned into one that gives y for x (``fold``)::

    first layer, of features    W <- W / scale    b <- b - (mean / scale) W
    last layer, of targets      W <- W * scale    b <- b * scale + mean

and back before training goes on (``unfold``). Kernels apply the first map to each row of X as they
read it: there is no second X.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches

from ._typing import Array, Matrix

if TYPE_CHECKING:
    from ._examples import Examples

# Numbers of X that scikit-learn looks at in one go: it makes several copies of them in float64.
BLOCK_SIZE = 2**18


def scaler_of(X: Matrix, scaler: StandardScaler | None = None) -> StandardScaler:
    """A ``StandardScaler`` fitted to X in little memory; or ``scaler``, which goes on with X."""
    if sp.issparse(X):
        return (scaler or StandardScaler(with_mean=False)).partial_fit(X)
    n_samples, n_features = X.shape
    going_on = StandardScaler() if scaler is None else scaler
    # Rounding may make the variance of a constant negative; Standardization tells of infinity.
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in gen_batches(n_samples, max(1, BLOCK_SIZE // n_features)):
            going_on.partial_fit(X[rows])
    return going_on


def _checked(scaler: StandardScaler, parameter: str, name: str) -> StandardScaler:
    """The scaler, or an error where squares of what it has seen are infinite, or 0 of all."""
    variance = scaler.var_
    with np.errstate(invalid="ignore"):
        # A column of one value has a variance of 0 too, but rarely one that small.
        lost = (variance < np.finfo(np.float64).tiny) & (abs(scaler.mean_) < 1e-150)
        lost &= scaler.mean_ != 0
    wrong = np.flatnonzero(~np.isfinite(variance) | lost)
    if wrong.size:
        size = "small" if lost[wrong[0]] else "large"
        raise ValueError(
            f"{parameter}=True: the numbers of column {wrong[0]} of {name} are so {size} that "
            "float64 does not hold their squares. Give them in another unit."
        )
    return scaler


class Standardization:
    """What an estimator standardises; nothing, if both scalers are None. Plain data, pickled.

    Parameters
    ----------
    features, targets : StandardScaler or None
        Fitted. One of sparse features only scales: centring would fill in the zeros.
    """

    def __init__(
        self, features: StandardScaler | None = None, targets: StandardScaler | None = None
    ) -> None:
        self.features: Any = features
        self.targets: Any = targets

    def learn(self, examples: Examples, features: bool, targets: bool) -> None:
        """Learn means and scales that are wanted and not yet known; forget those not wanted."""
        if not features:
            self.features = None
        elif self.features is None:
            self.features = _checked(examples.feature_scaler(), "standardize", "X")
        elif examples.is_sparse:
            self.features.with_mean = False
        if not targets:
            self.targets = None
        elif self.targets is None:
            self.targets = _checked(examples.target_scaler(), "standardize_target", "y")

    def of_features(self, is_sparse: bool) -> tuple[Array, Array] | None:
        """Means and scales with which training sees X, or None; the means of sparse X are 0."""
        scaler = self.features
        if scaler is None:
            return None
        if scaler.with_mean and is_sparse:
            raise ValueError(
                "standardize=True has learned from a dense X to centre features, which would fill "
                "in the zeros of a sparse one: give both in the same form."
            )
        return scaler.mean_ if scaler.with_mean else np.zeros_like(scaler.scale_), scaler.scale_

    def of_targets(self, y: Array) -> Array:
        """Targets as training sees them."""
        if self.targets is None:
            return y
        return self.targets.transform(y.reshape(len(y), -1)).reshape(y.shape)

    def fold(self, coefs: list[Array], intercepts: list[Array]) -> None:
        """Turn a network of x' and y' into one of x and y, in place."""
        if self.features is not None:
            W, b = coefs[0], intercepts[0]
            b -= self._shift() @ W
            W /= self.features.scale_[:, np.newaxis]
        if self.targets is not None:
            W, b = coefs[-1], intercepts[-1]
            W *= self.targets.scale_
            b[...] = b * self.targets.scale_ + self.targets.mean_

    def unfold(self, coefs: list[Array], intercepts: list[Array]) -> None:
        """Turn a network of x and y into one of x' and y', in place."""
        if self.features is not None:
            W, b = coefs[0], intercepts[0]
            W *= self.features.scale_[:, np.newaxis]
            b += self._shift() @ W
        if self.targets is not None:
            W, b = coefs[-1], intercepts[-1]
            W /= self.targets.scale_
            b[...] = (b - self.targets.mean_) / self.targets.scale_

    def _shift(self) -> Array:
        scaler = self.features
        return scaler.mean_ / scaler.scale_ if scaler.with_mean else np.zeros_like(scaler.scale_)

    @contextlib.contextmanager
    def training(self, coefs: list[Array], intercepts: list[Array], fresh: bool) -> Iterator[None]:
        """A block in which the network is one of x' and y', however it is left.

        ``fresh`` weights were drawn for x' and y'; others are unfolded first.
        """
        # Weights that diverged are reported after training, not by warnings from here.
        with np.errstate(over="ignore", invalid="ignore"):
            if not fresh:
                self.unfold(coefs, intercepts)
            try:
                yield
            finally:
                self.fold(coefs, intercepts)
