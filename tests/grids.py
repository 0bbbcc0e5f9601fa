"""Which cases of a large grid run every time, and which with ``-m nightly``."""

import itertools

import numpy as np
import pytest


def covering(cases, strength):
    """A few of the cases in which any ``strength`` of the factors have all their values together.

    Greedy: the next case is the one with the most combinations that none before it has.

    Parameters
    ----------
    cases : list of tuple
        Each has a value for each factor.
    strength : int

    Returns
    -------
    set of int
        Places in ``cases``.
    """
    numbers = {}
    combinations = [
        [
            numbers.setdefault((places, tuple(case[k] for k in places)), len(numbers))
            for places in itertools.combinations(range(len(case)), strength)
        ]
        for case in cases
    ]
    combinations = np.array(combinations)
    missing = np.ones(len(numbers), bool)
    chosen = set()
    while missing.any():
        best = int(missing[combinations].sum(axis=1).argmax())
        missing[combinations[best]] = False
        chosen.add(best)
    return chosen


def nightly_but(cases, chosen):
    """Parameters of a test, of which those not ``chosen`` (places) run with ``-m nightly``."""
    return [
        pytest.param(*case, marks=() if i in chosen else pytest.mark.nightly)
        for i, case in enumerate(cases)
    ]
