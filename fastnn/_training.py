"""Where pickled models of earlier versions look for the classes that they hold."""

from ._loops import Progress
from ._optimizer import Optimizer

__all__ = ["Optimizer", "Progress"]
