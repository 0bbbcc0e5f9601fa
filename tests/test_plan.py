"""The division of a mini-batch: each example and each parameter is somebody's, and only one's."""

import numpy as np
import pytest
from numba import njit

from fastnn.kernels.jit import FLAGS
from fastnn.kernels.layout import starts_of
from fastnn.kernels.plan import (
    BY_CHUNKS,
    BY_ROWS,
    CLIPPED,
    OUTSIDE,
    STEP,
    bounds_of,
    chunks_of,
    examples_of,
    n_parts,
    plan_for,
    takers_of,
)
from fastnn.kernels.team import new_sync, next_chunk

SMALL, LARGE = [7, 20, 3], [64, 300, 100, 1]
each_net = pytest.mark.parametrize("units", [[1, 1], SMALL, LARGE, [3000, 2]])
each_team = pytest.mark.parametrize("n_threads", [1, 2, 3, 7])


def tasks_of(plan, kind, n_threads):
    """The tasks of all threads, of the first thread first."""
    bounds = bounds_of.py_func(plan, kind, n_threads)[: n_threads + 1]
    assert (np.diff(bounds) >= 0).all()
    return list(plan.tasks.view(np.recarray)[bounds[0] : bounds[-1]])


@each_net
def test_chunks_are_theta_from_its_beginning_to_its_end(units):
    chunks = chunks_of(units)
    assert chunks["start"][0] == 0
    assert chunks["stop"][-1] == starts_of(units)[-1]
    np.testing.assert_array_equal(chunks["start"][1:], chunks["stop"][:-1])
    n_out = np.array(units)[1:][chunks["layer"]]
    np.testing.assert_array_equal(
        chunks["stop"] - chunks["start"], (chunks["last_row"] - chunks["first_row"]) * n_out
    )


@each_net
@each_team
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("size", [1, 13, 200, 1024])
def test_each_example_and_each_chunk_is_in_one_task(units, n_threads, alone, size):
    plan = plan_for(units, 200, n_threads)
    n = 1 if alone else n_threads
    examples, chunks = [], []
    for task in tasks_of(plan, BY_ROWS, n):
        examples += range(*examples_of.py_func(task, size))
    for task in tasks_of(plan, BY_CHUNKS, n):
        assert examples_of.py_func(task, size) == (0, size)
        chunks += range(task.first_chunk, task.last_chunk)
    assert examples == list(range(size))
    assert chunks == list(range(len(plan.chunks)))


@njit(**FLAGS)
def take(sync, tasks, number, k, owner, n_takers):
    return next_chunk(sync, tasks[number], k, owner, n_takers)


@pytest.mark.parametrize("n_threads", [2, 3, 4, 7])
def test_threads_take_each_chunk_once_whoever_is_late(n_threads):
    plan, rng = plan_for([300, 600, 600, 600, 10], 200, n_threads), np.random.default_rng(0)
    takers, sync = takers_of.py_func(plan, n_threads), new_sync(n_threads)
    assert takers == min(n_threads, 4)
    first = bounds_of.py_func(plan, BY_CHUNKS, n_threads)[0]
    for _ in range(5):  # stages, one after the other
        taken, visits = [], dict.fromkeys(range(n_threads), 0)
        while visits:
            thread = rng.choice(list(visits))
            owner = (thread + visits[thread]) % n_threads
            k = take(sync, plan.tasks, first + owner, 0, owner, takers)
            if k < plan.tasks["last_chunk"][first + owner]:
                taken.append(k)
            else:
                visits[thread] += 1
                if visits[thread] == takers:
                    del visits[thread]
        assert sorted(taken) == list(range(len(plan.chunks)))


def test_little_is_not_shared_out_anew():
    assert takers_of.py_func(plan_for(SMALL, 200, 2), 2) == 1


@each_team
def test_parts_of_small_networks_do_not_depend_on_the_threads(n_threads):
    expected = [(part, n_parts(SMALL, 200), 0, len(chunks_of(SMALL))) for part in range(2)]
    plan = plan_for(SMALL, 200, n_threads)
    for n in (1, n_threads):
        tasks = tasks_of(plan, BY_ROWS, n)
        assert [task.item() for task in tasks] == expected


@pytest.mark.parametrize("units", [SMALL, LARGE])
@pytest.mark.parametrize("program", [STEP, CLIPPED, OUTSIDE])
def test_each_program_forms_the_gradient_once_and_ends_with_the_update(units, program):
    stages = plan_for(units, 200, 2).stages[program]
    stages = stages[: stages["last"].tolist().index(1) + 1]
    for action in ("forward", "gradient", "update"):
        assert stages[action].sum() == 1, action
    assert stages["update"][-1] == 1
    clipped = program == CLIPPED
    assert stages["norm"].sum() == stages["clip"].sum() == clipped
    # The gradient outlives its stage where anyone reads it afterwards.
    assert stages["temporary"].sum() == (program == STEP)
