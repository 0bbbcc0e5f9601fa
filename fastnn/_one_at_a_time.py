"""Fits of one estimator take turns, and one that fails leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
import weakref
from collections.abc import Iterator

from ._state import restore, state_of
from ._typing import Warnings
from ._warn import warn

# By id, a lock for each estimator that was ever fitted and still exists.
_turns: dict[int, threading.RLock] = {}
if hasattr(os, "register_at_fork"):
    # No thread that could hold one of these lives on in a child process.
    os.register_at_fork(after_in_child=_turns.clear)


def _lock_of(estimator: object) -> threading.RLock:
    # Not by equality: a subclass may define it, and then has no hash, or one that others share.
    key = id(estimator)
    if key not in _turns:
        weakref.finalize(estimator, _turns.pop, key, None).atexit = False
    return _turns.setdefault(key, threading.RLock())


@contextlib.contextmanager
def turn(estimator: object, going_on: bool) -> Iterator[Warnings]:
    """A block that fits ``estimator``, or raises an exception and leaves it as it was.

    It is given a list for warnings, pairs of message and category, which are issued once the fit
    has succeeded: a filter may turn them into exceptions, and they are no reason to undo it.

    Parameters
    ----------
    estimator : BaseMLP
    going_on : bool
        Whether the block may train the present weights in place; otherwise it makes new ones.
    """
    warnings: Warnings = []
    with _lock_of(estimator):
        before = state_of(estimator)
        curves, weights = [], []
        if going_on:
            for attributes in before:
                for name, value in attributes.items():
                    if name in ("_optimizer", "_progress", "_scaling"):
                        attributes[name] = copy.deepcopy(value)
                    elif isinstance(value, list) and name.endswith(("_curve_", "_scores_")):
                        curves.append((value, len(value)))  # may be long, and only grows
            weights = [
                (array, array.copy())
                for name in ("coefs_", "intercepts_")
                for array in getattr(estimator, name, ())
                if hasattr(array, "flags") and array.flags.writeable
            ]
        try:
            yield warnings
        except BaseException:
            restore(estimator, before)
            for curve, length in curves:
                del curve[length:]
            for array, values in weights:
                array[...] = values
            raise
    for message, category in warnings:
        warn(message, category)
