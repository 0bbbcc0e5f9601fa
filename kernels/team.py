"""The threads of one fit: what they are told, and where they wait for each other.

Every thread runs the same kernel on its part of the work (SPMD), slice by slice of an epoch: what a
slice is to do stands in ``orders``. Threads talk in one place only, the int64 vector ``sync``:

==============  ==============================================================================
``ARRIVALS``    arrivals at barriers since the threads began; a barrier waits for its number
``STARTED``     slices of an epoch begun so far; helpers wait for the next
``ABORT``       set by Python when a thread failed or is done: every wait ends, with False
``LAST``        set by thread 0 before a barrier, when time is over: where the slice is to end,
                behind that barrier
``TAKEN``       and every 16th from there on: chunks taken from the shard of thread 0, 1, ...
==============  ==============================================================================

Waiting spins for a few microseconds, the usual length of a wait; then it gives the core away with
every look; then it sleeps, ever longer. Cores may be oversubscribed or throttled by a quota:
spinning on would keep the very thread that is waited for from running. Where other programs want
the cores, a single barrier may take as long as one of them keeps a core: so a slice ends when its
time is over, and Python decides anew on how many threads to go on.
"""

from typing import NamedTuple

import numpy as np

from .jit import leaf, shared
from .machine import apart, atomic_add, atomic_load, nanoseconds, pause, sleep, yield_core
from .matmul import address
from .rules import Rule

# Order of memory: what threads wait for is written by ``atomic_add`` (acquire and release:
# ``ldaxr`` and ``stlxr`` on ARM) and looked at by ``atomic_load`` (acquire: ``ldar``). Nothing
# else orders memory, and nothing else has to. Arrivals at a barrier are one chain of such
# additions: who has seen the last sees what any thread wrote before its own. And no write behind
# a barrier reaches a read before it: of ``orders``, which thread 0 changes behind the last
# barrier of a slice, when no other reads them until the next slice. ``LAST`` is read behind the
# first barrier of a micro-batch, perhaps when thread 0 has come to the next one: it names the
# micro-batch that it is meant for. ``ABORT`` is written plainly: it says no more than that it is
# set.

# On different pairs of cache lines, but for the two that hardly change.
ARRIVALS, STARTED, ABORT, LAST, TAKEN, _APART = 0, 16, 32, 33, 48, 16

_SPINS = 500
_YIELDS = 4000
_SLEEP_MICROSECONDS, _LONGEST_SLEEP = 50, 1000


# A slice of an epoch: what it is to do, and what came of it. Mini-batches begin at multiples of
# batch_size; a slice begins and ends with one, or with a micro-batch in one. What all threads read
# in each update comes first, what thread 0 writes in each comes last: far apart, so that a write
# does not take the cache line of the others away.
ORDERS = np.dtype(
    [
        ("n_threads", np.int64),
        *Rule.__annotations__.items(),
        ("first", np.int64),  # examples rows[first:last] of the epoch's rows[:end]; afterwards,
        ("last", np.int64),  # last is where the slice ended
        ("end", np.int64),
        ("batch_size", np.int64),
        ("seconds", np.float64),  # on several threads, the slice ends after about so long,
        ("deadline", np.int64),  # at this time of the clock
        ("updates", np.int64),  # both ways: number so far
        ("loss", np.float64),  # both ways: sum over examples
        ("batch_loss", np.float64),  # both ways: of the mini-batch that is not complete,
        ("batch_weight", np.float64),  # and the weight of all its examples
    ]
)


class Team(NamedTuple):
    """What the threads of one fit share with Python."""

    orders: np.ndarray  # (1,) ORDERS
    sync: np.ndarray  # int64


def new_team(batch_size, n_threads):
    """A ``Team`` for mini-batches of so many examples, before its first slice."""
    team = Team(apart(1, ORDERS), new_sync(n_threads))
    team.orders["batch_size"] = batch_size
    return team


def new_sync(n_threads):
    """A vector for threads to meet by."""
    return apart(TAKEN + n_threads * _APART, np.int64)


@shared
def _wait(sync, index, value):
    """Wait until ``sync[index]`` is at least ``value``; False means: leave."""
    looks = 0
    microseconds = _SLEEP_MICROSECONDS
    while atomic_load(address(sync, index)) < value:
        looks += 1
        if looks < _SPINS:
            pause()
        else:
            if atomic_load(address(sync, ABORT)) != 0:
                return False
            if looks < _SPINS + _YIELDS:
                yield_core()
            else:
                sleep(microseconds)
                microseconds = min(2 * microseconds, _LONGEST_SLEEP)
    return True


@leaf
def meet(sync, n_threads):
    """Wait for the other threads of a team; False means: leave.

    Each arrival draws the next ticket, from 0 on; a round is full once ``n_threads`` tickets are
    drawn. All rounds of one ``sync`` have the same size: a slice runs on one thread, which does not
    wait, or on all threads of the fit.
    """
    if n_threads == 1:
        return True
    ticket = atomic_add(address(sync, ARRIVALS), 1)
    return _wait(sync, ARRIVALS, (ticket // n_threads + 1) * n_threads)


@leaf
def next_chunk(sync, task, k, owner, n_takers):
    """The chunk of a task to go on with after chunk ``k``, -1 at first; not below its last: none.

    Where the task belongs to the thread ``owner`` and ``n_takers`` threads take from it, each is
    told once in every stage that there is none, so that the count starts anew behind the barrier.
    """
    if n_takers == 1:
        return task.first_chunk if k < 0 else k + 1
    ticket = atomic_add(address(sync, TAKEN + owner * _APART), 1)
    return task.first_chunk + ticket % (task.last_chunk - task.first_chunk + n_takers)


@leaf
def start_slice(team):
    """Let the helpers go on, by thread 0: what they are to do is written."""
    orders = team.orders[0]
    orders.deadline = nanoseconds() + np.int64(1e9 * orders.seconds)
    team.sync[LAST] = 0
    atomic_add(address(team.sync, STARTED), 1)


@leaf
def end_slice_in_time(team, last):
    """Before the first barrier of a micro-batch, by thread 0: if time is over, let the slice end
    at ``last``, the end of that micro-batch."""
    if nanoseconds() > team.orders[0].deadline:
        team.sync[LAST] = last


@leaf
def wait_for_slice(sync, number):
    """Wait until slice ``number``, counted from 1, has begun; False means: leave."""
    return _wait(sync, STARTED, number)
