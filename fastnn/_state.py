"""All attributes of an estimator, wherever a subclass keeps them."""

from __future__ import annotations

from typing import Any, TypeAlias

from ._typing import Estimator

State: TypeAlias = tuple[dict[str, Any], dict[str, Any]]


def state_of(estimator: object) -> State:
    """Two new dicts: the attributes of the instance, and those in slots of a subclass."""
    state: Any = object.__getstate__(estimator)
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    return dict(attributes or {}), dict(slots)


def restore(estimator: object, state: State) -> None:
    """Make ``state`` all that the estimator has."""
    attributes, slots = state
    vars(estimator).clear()
    vars(estimator).update(attributes)
    for name in state_of(estimator)[1].keys() - slots.keys():
        object.__delattr__(estimator, name)
    for name, value in slots.items():
        object.__setattr__(estimator, name, value)


def shallow_copy(estimator: Estimator) -> Estimator:
    """A copy with the same attributes; ``copy.copy`` does what a subclass says."""
    twin = object.__new__(type(estimator))
    restore(twin, state_of(estimator))
    return twin
