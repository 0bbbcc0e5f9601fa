"""The types that users give and get, and what modules hand each other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray


class SparseMatrix(Protocol):
    """A sparse matrix or array of SciPy."""

    def tocsr(self) -> Any: ...


class Table(Protocol):
    """A table of pandas, polars, pyarrow and others, which NumPy does not know."""

    def __dataframe__(self) -> Any: ...


class DaskCollection(Protocol):
    """An array, a dataframe or a series of Dask."""

    def __dask_graph__(self) -> Any: ...


Array: TypeAlias = NDArray[Any]
Data: TypeAlias = ArrayLike | SparseMatrix | Table
TableData: TypeAlias = Data | Sequence[Any]  # rows of numbers, text and None

Units: TypeAlias = int | Sequence[int] | Array
Activation: TypeAlias = str | tuple[str, float]
Weights: TypeAlias = Sequence[ArrayLike]
Schedule: TypeAlias = str | Callable[[int], float]
Scoring: TypeAlias = str | Callable[..., float]
ClassWeight: TypeAlias = str | Mapping[Any, float] | Sequence[Mapping[Any, float]]
Seed: TypeAlias = int | np.random.RandomState

Matrix: TypeAlias = Any  # an ndarray or a csr_array; SciPy has no types
Method = TypeVar("Method", bound=Callable[..., Any])
Estimator = TypeVar("Estimator")
Warnings: TypeAlias = list[tuple[str, type[Warning]]]  # for when a fit has succeeded


class Parameters:
    """The parameters that both estimators have: an estimator's own, or those of one fit."""

    hidden_layer_sizes: Units
    activation: Activation | Sequence[Activation]
    solver: str
    alpha: float
    batch_size: int | str
    learning_rate: Schedule
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Seed | None
    tol: float
    verbose: bool | int | str
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    lazy_update: bool
    n_threads: int | None
    out_activation: Activation | None
    init: str | tuple[Weights, Weights]
    standardize: bool
    dropout: float | Sequence[float]
    weight_decay: float
    clip_norm: float | None
    max_time: float | None
    scoring: Scoring | None
    weight_average: float | None
    loss: str


class Attributes(Parameters):
    """What both estimators have, for type checkers and editors: parameters, and what a fit sets."""

    coefs_: list[Array]
    intercepts_: list[Array]
    loss_: float
    best_loss_: float | None
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    best_epoch_: int | None
    stop_reason_: str
    validation_loss_curve_: list[float] | None
    n_iter_: int
    t_: int
    n_layers_: int
    n_outputs_: int
    out_activation_: Activation
    n_features_in_: int
    feature_names_in_: Array
