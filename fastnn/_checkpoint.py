"""What a fit is of, so that a checkpoint goes on with that fit and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import joblib

from ._typing import Parameters
from ._warn import warn

if TYPE_CHECKING:
    from ._loops import Progress

# What decides which epochs are done already: another value makes another fit.
_SETTINGS = (
    "solver",
    "batch_size",
    "shuffle",
    "random_state",
    "early_stopping",
    "validation_fraction",
)


Description: TypeAlias = dict[str, str | None]


def description(settings: Parameters, **data: Any) -> Description:
    """What a fit is of, in plain data: settings, and a digest of each array."""
    described = {name: repr(getattr(settings, name)) for name in _SETTINGS}
    if hasattr(settings.random_state, "get_state"):
        described["random_state"] = "RandomState"  # whose state the checkpoint has
    digests = {name: None if a is None else joblib.hash(a) for name, a in data.items()}
    return described | digests


def is_of(progress: Progress, fit: Description) -> bool:
    """Whether a checkpoint is of this fit; a warning says what differs.

    Parameters
    ----------
    progress : Progress
        The checkpoint's.
    fit : dict
        The ``description`` of the fit that is to go on.
    """
    if progress.fit is None:  # of a version that did not note it
        return True
    other = [name for name in fit if fit[name] != progress.fit.get(name)]
    if other:
        warn(
            f"This estimator is a checkpoint after epoch {progress.n_epochs} of a fit with other "
            f"values of {', '.join(other)}. It cannot go on with that fit, so training begins "
            "anew from the weights of the checkpoint, as warm_start does. Give what that fit had "
            "to complete it."
        )
    return not other
