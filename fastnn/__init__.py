"""fastnn: scikit-learn's multilayer perceptrons, many times faster on a CPU.

>>> from fastnn import MLPClassifier, MLPRegressor
"""

import gc

_collecting = gc.isenabled()
gc.disable()  # importing makes objects that stay: searching them took a quarter of the time
try:
    # scikit-learn as a whole comes first: by its parts, from the modules below, it took longer.
    import sklearn.base  # noqa: F401

    from ._backpropagation import Network, backpropagation
    from ._classifier import MLPClassifier
    from ._display import LossCurveDisplay
    from ._exchange import from_sklearn, skops_types, to_sklearn
    from ._regressor import MLPRegressor
    from ._scores import d2_quantile_score
    from ._streams import Stream
    from ._tabular import TabularClassifier, TabularRegressor
    from ._warmup import warmup
    from ._warn import warn_of_namesake
finally:
    if _collecting:
        gc.enable()

__version__ = "0.1.0"
__all__ = [
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPRegressor",
    "Network",
    "Stream",
    "TabularClassifier",
    "TabularRegressor",
    "backpropagation",
    "d2_quantile_score",
    "from_sklearn",
    "skops_types",
    "to_sklearn",
    "warmup",
]

warn_of_namesake()
del warn_of_namesake
