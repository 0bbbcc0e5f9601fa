"""A long-lived process that prepares tasks and times them, one request after the other.

Requests and answers are pickles on stdin and stdout. ``("make", function, arguments)`` keeps the
callable that ``function(*arguments)`` returns and answers its number. ``("run", number,
arguments)`` answers the seconds that it took and its result. ``("drop",)`` forgets all tasks.
"""

import os
import pickle
import sys
import time
import traceback

from . import isa


def answer(tasks, action, *details):
    if action == "make":
        function, arguments = details
        tasks.append(function(*arguments))
        if isa.restriction():
            isa.check_libraries()
        return len(tasks) - 1
    if action == "run":
        number, arguments = details
        started = time.perf_counter()
        result = tasks[number](*arguments)
        seconds = time.perf_counter() - started
        if isa.restriction():
            isa.check_instructions()
        return seconds, result
    tasks.clear()
    return None


def main():
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints
    tasks = []
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = True, answer(tasks, *request)
        except Exception:
            result = False, traceback.format_exc()
        pickle.dump(result, answers)
        answers.flush()


if __name__ == "__main__":
    main()
