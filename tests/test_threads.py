"""The choice of the number of threads."""

import multiprocessing
import threading

import pytest

from fastnn._pace import Pace
from fastnn._threads import WORTH_A_THREAD, choose_n_threads


def simulate(pace, speeds, seconds):
    """Let slices take the time they would at ``speeds``; returns the share of time of each."""
    spent = dict.fromkeys(speeds, 0.0)
    while sum(spent.values()) < seconds:
        n_threads, examples = pace.next_slice()
        if n_threads > 1:  # the kernel ends these when their time is over
            examples = min(examples, pace.limit * speeds[n_threads])
        examples = max(1, int(examples))
        overhead = 1e-4  # of waking, of the call
        spent[n_threads] += examples / speeds[n_threads] + overhead
        pace.record(n_threads, examples, examples / speeds[n_threads] + overhead)
    return {n_threads: part / sum(spent.values()) for n_threads, part in spent.items()}


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("guess", [1e2, 1e3])
@pytest.mark.parametrize("speeds", [{1: 1e6, 2: 1.7e6}, {1: 1e6, 2: 0.5e6}, {1: 1e4, 8: 100.0}])
def test_most_of_the_time_goes_at_the_better_pace(speeds, guess, wanted):
    shares = simulate(Pace(max(speeds), wanted, guess), speeds, 3.0)
    assert shares[max(speeds, key=speeds.get)] > 0.9


@pytest.mark.parametrize("wanted", [False, True])
def test_the_pace_follows_the_machine(wanted):
    pace = Pace(2, wanted, 1e5)
    assert simulate(pace, {1: 1e6, 2: 1.8e6}, 1.0)[2] > 0.9
    assert simulate(pace, {1: 1e6, 2: 0.3e6}, 3.0)[1] > 0.8  # another program took the core
    assert simulate(pace, {1: 1e6, 2: 1.8e6}, 3.0)[2] > 0.8  # and went


def test_a_steady_choice_is_seldom_questioned():
    pace, speeds = Pace(2, False, 1e5), {1: 1e6, 2: 1.8e6}
    simulate(pace, speeds, 1.0)
    assert simulate(pace, speeds, 10.0)[1] < 0.003
    # Not so one that has become slower: perhaps the other is the better one by now.
    assert simulate(pace, {1: 1.3e6, 2: 1.2e6}, 3.0)[1] > 0.8


def test_no_slice_comes_before_a_trial_that_is_as_long():
    pace, spent = Pace(2, False, 1e3), {1: 0.0, 2: 0.0}
    while sum(spent.values()) < 10.0:
        n_threads, _ = pace.next_slice()
        seconds = 0.01 if n_threads == 1 else 0.006  # a mini-batch, whatever is asked for
        spent[n_threads] += seconds
        pace.record(n_threads, 256, seconds)
    assert spent[1] < 0.1


def test_the_end_of_other_work_is_seen_soon():
    """A short slice is as good as a long one, and takes at most twice as long as it should."""
    pace, speeds = Pace(2, False, 1e5, Pace.SHORT_SECONDS), {1: 1e6, 2: 0.7e6}
    assert simulate(pace, speeds, 3.0)[1] > 0.9
    n_threads, examples = pace.next_slice()
    assert examples / speeds[n_threads] < 2 * Pace.SHORT_SECONDS


def test_one_choice_is_always_taken():
    assert simulate(Pace(1, False, 1e5), {1: 1e6}, 1.0) == {1: 1.0}


def test_as_many_threads_as_asked_for_until_they_prove_slower():
    pace = Pace(3, True, 1e5)
    assert simulate(pace, {3: 1e5, 1: 1e6}, pace.FIRST_SECONDS)[3] == 1.0
    assert simulate(pace, {3: 1e5, 1: 1e6}, 1.0)[1] > 0.9


def test_trials_that_are_dear_are_rare():
    """With busy processes on all cores each trial takes tens of milliseconds."""
    pace, spent = Pace(2, False, 1e5), {1: 0.0, 2: 0.0}
    while sum(spent.values()) < 10.0:
        n_threads, examples = pace.next_slice()
        seconds = examples / 1e6 if n_threads == 1 else 0.03
        spent[n_threads] += seconds
        pace.record(n_threads, examples, seconds)
    assert 0.01 < spent[2] / 10.0 < 0.04


def test_the_number_of_threads_is_what_pays_off(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 4)
    assert choose_n_threads(7, 0) == 7  # as asked for
    assert choose_n_threads(9, 0) == 8  # but no more than there are cores
    # Below 0 as many as joblib's n_jobs means, and at least one.
    found = [choose_n_threads(n_threads, 0) for n_threads in (-1, -2, -7, -8, -9, -100)]
    assert found == [8, 7, 2, 1, 1, 1]
    assert choose_n_threads(None, WORTH_A_THREAD) == 1
    assert choose_n_threads(None, 3 * WORTH_A_THREAD) == 3
    assert choose_n_threads(None, 100 * WORTH_A_THREAD) == 4


def test_one_thread_where_the_caller_is_parallel_already(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    found = []
    thread = threading.Thread(target=lambda: found.append(choose_n_threads(None, 1e12)))
    thread.start()
    thread.join()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found.append(pool.apply(choose_n_threads, (None, 1e12)))
    assert found == [1, 1]
