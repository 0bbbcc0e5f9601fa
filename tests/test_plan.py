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
    EACH,
    OUTSIDE,
    STEP,
    chunks_of,
    examples_of,
    n_parts,
    plan_for,
    takers_of,
)
from fastnn.kernels.team import new_sync, next_chunk

SMALL, MEDIUM, LARGE = [7, 20, 3], [64, 300, 100, 1], [300, 600, 10]
each_net = pytest.mark.parametrize("units", [[1, 1], SMALL, MEDIUM, LARGE, [3000, 2]])
each_team = pytest.mark.parametrize("n_threads", [1, 2, 3, 7])


def bounds_of(plan, kind, n_threads):
    """Where the tasks of each of so many threads begin, as kernels look it up."""
    return plan.bounds[0 if n_threads == 1 else 1, kind]


def tasks_of(plan, kind, n_threads):
    """The tasks of all threads, of the first thread first."""
    bounds = bounds_of(plan, kind, n_threads)[: n_threads + 1]
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
        examples += range(*examples_of.py_func(task.part, task.n_parts, size))
    for task in tasks_of(plan, BY_CHUNKS, n):
        assert task.part == 0
        assert task.n_parts == max(1, n_parts(units, 200))
        chunks += range(task.first_chunk, task.last_chunk)
    assert examples == list(range(size))
    assert chunks == list(range(len(plan.chunks)))
    for thread in range(n):  # each goes through all chunks
        begin, end = bounds_of(plan, EACH, n)[thread : thread + 2]
        assert [task.item() for task in plan.tasks[begin:end]] == [(0, 1, 0, len(chunks))]


@njit(**FLAGS)
def take(sync, tasks, number, k, owner, n_takers):
    return next_chunk(sync, tasks[number], k, owner, n_takers)


@pytest.mark.parametrize("n_threads", [2, 3, 4, 7])
def test_threads_take_each_chunk_once_whoever_is_late(n_threads):
    plan, rng = plan_for([300, 600, 600, 600, 10], 200, n_threads), np.random.default_rng(0)
    takers, sync = takers_of.py_func(plan, n_threads), new_sync(n_threads)
    assert takers == min(n_threads, 4)
    first = bounds_of(plan, BY_CHUNKS, n_threads)[0]
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


@pytest.mark.parametrize(
    ("units", "n_threads", "sparse"),
    [(SMALL, 1, False), (SMALL, 2, False), (MEDIUM, 2, False), (SMALL, 7, True)],
)
def test_each_part_is_a_task_where_no_more_threads_than_parts_pay(units, n_threads, sparse):
    expected = [(part, n_parts(units, 200), 0, len(chunks_of(units))) for part in range(2)]
    tasks = tasks_of(plan_for(units, 200, n_threads, sparse), BY_ROWS, n_threads)
    assert [task.item() for task in tasks] == expected


@pytest.mark.parametrize(("units", "n_threads"), [(SMALL, 3), (MEDIUM, 1), (MEDIUM, 7)])
def test_otherwise_the_parts_are_summed_one_after_the_other(units, n_threads):
    plan = plan_for(units, 200, n_threads)
    assert len(tasks_of(plan, BY_ROWS, n_threads)) == n_threads
    assert {task.n_parts for task in tasks_of(plan, BY_CHUNKS, n_threads)} == {n_parts(units, 200)}


@pytest.mark.parametrize("units", [SMALL, MEDIUM, LARGE])
@pytest.mark.parametrize("program", [STEP, CLIPPED, OUTSIDE])
@pytest.mark.parametrize("crew", [0, 1])
def test_each_program_forms_the_gradient_once_and_ends_with_the_update(units, program, crew):
    stages = plan_for(units, 200, 2).stages[crew, program]
    stages = stages[: stages["last"].tolist().index(1) + 1]
    for action in ("forward", "gradient", "update"):
        assert stages[action].sum() == 1, action
    assert stages["add_parts"].sum() == (n_parts(units, 200) > 0)
    assert stages["update"][-1] == 1
    clipped = program == CLIPPED
    assert stages["norm"].sum() == stages["clip"].sum() == clipped
    # The gradient outlives its stage where anyone reads it afterwards.
    assert stages["temporary"].sum() == (program == STEP)
