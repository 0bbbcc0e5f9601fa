"""fastnn: scikit-learn's multilayer perceptrons, many times faster on a CPU.

>>> from fastnn import MLPClassifier, MLPRegressor
"""

# scikit-learn as a whole comes first: by its parts, from the modules below, it took 0.1 s longer.
import sklearn.base  # noqa: F401

from ._backpropagation import Network, backpropagation
from ._classifier import MLPClassifier
from ._display import LossCurveDisplay
from ._regressor import MLPRegressor
from ._scores import d2_quantile_score
from ._streams import Stream
from ._warmup import warmup

__version__ = "0.1.0"
__all__ = [
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPRegressor",
    "Network",
    "Stream",
    "backpropagation",
    "d2_quantile_score",
    "warmup",
]
