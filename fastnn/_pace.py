"""How many threads pay off, found out while training, and how long slices of an epoch last."""


class Pace:
    """Finds by trying on how many threads slices of an epoch go fastest, and how long they last.

    A second core may be taken by another program, or by another fit. As results do not depend on
    the number of threads, it can change from slice to slice.

    Parameters
    ----------
    most : int
        The number of threads to choose, if it is not one.
    wanted : bool
        Whether the user asked for ``most``: it is the choice until it has proved to be worse.
    guess : float
        Examples per second, until the first slice is timed.
    seconds : float
        How long slices last, and at most those of trials.
    """

    SLICE_SECONDS = 0.05  # so that Ctrl-C and messages stay alive
    SHORT_SECONDS = 0.0005  # beside other work, whose end is to be seen soon
    TRIAL_SECONDS = 0.002
    WARM_SECONDS = 0.00025  # of the slice before a trial, see record
    # The choice is questioned after so long: soon at first, as a short trial may be disturbed, then
    # after ever longer. One thread does not notice that a core becomes free, and is questioned
    # often; several are seen to slow down when one is taken.
    FIRST_SECONDS, MOST_SECONDS, STEADY_SECONDS = 0.02, 0.32, 2.56
    STEADY = 0.9  # of the speed with which they were chosen
    # Trials may take this part of the time. One is dear where a helper has to wait for a busy core.
    MOST_LOST = 0.03
    # And so many seconds before that: the threads of a BLAS go on spinning for a while after a call
    # of it, and the first trial of several threads waits for them.
    CREDIT_SECONDS = 0.03
    # A slice on several threads ends when it has taken so many times as long as expected.
    PATIENCE = 2

    def __init__(
        self, most: int, wanted: bool, guess: float, seconds: float = SLICE_SECONDS
    ) -> None:
        self._seconds, self._of_trial = seconds, min(seconds, self.TRIAL_SECONDS)
        self._speeds = {most: guess}
        self._trials = []
        if most > 1:
            self._speeds[1] = 0.0 if wanted else guess
            self._trials = [] if wanted else [most, 1]
        self._tried = [0, 0.0]  # examples and seconds of the trial that goes on
        self._spent = [0, 0.0]  # of this trial and those before it, with the slices to warm up
        self._last: int | None = None  # number of threads of the last slice
        self._since_trials = 0.0
        self._credit = self.CREDIT_SECONDS
        self._least_between = self.FIRST_SECONDS
        self._dear = 0.0  # seconds between trials that are as dear as the last
        self._chosen = most, 0.0  # the choice when the last trials ended, and its speed

    def next_slice(self) -> tuple[int, float]:
        """Number of threads, and of examples, of the next slice."""
        best = max(self._speeds, key=self._speeds.__getitem__)
        steady = best > 1 and self._speeds[best] > self.STEADY * self._chosen[1]
        most = self.STEADY_SECONDS if steady else self.MOST_SECONDS
        # What has become slower than the other may just have been disturbed: then at once.
        least = self.FIRST_SECONDS if best != self._chosen[0] else self._least_between
        between = max(min(least, most), self._dear)
        if self._since_trials > between and len(self._speeds) > 1:
            self._trials = [n_threads for n_threads in self._speeds if n_threads != best]
            self._since_trials = 0.0
            self._least_between *= 2 if best == 1 else 4
        if self._trials:
            n_threads = self._trials[0]
            seconds = self._of_trial if n_threads == self._last else self.WARM_SECONDS
            return n_threads, self._speeds[n_threads] * seconds
        return best, self._speeds[best] * self._seconds

    @property
    def limit(self) -> float:
        """Seconds after which the next slice is to end early if it goes on several threads."""
        return self.PATIENCE * (self._of_trial if self._trials else self._seconds)

    def record(self, n_threads: int, examples: int, seconds: float) -> None:
        """Note how long a slice took."""
        speed = examples / max(seconds, 1e-9)
        if self._trials:
            self._spent[0] += examples
            self._spent[1] += seconds
            # What cannot be shorter than a trial is one, unless it is the first of all.
            is_long = examples > max(self._speeds.values()) * self._of_trial
            counts = is_long and self._last is not None
        else:
            counts = seconds >= self._seconds / 2
        changed, self._last = n_threads != self._last, n_threads
        if changed and not counts:
            # Memory and caches are cold, and helpers have to wake: in a trial it tells how long
            # the next slice should be, otherwise nothing.
            if self._trials:
                self._speeds[n_threads] = speed
        elif self._trials:
            self._tried[0] += examples
            self._tried[1] += seconds
            self._speeds[n_threads] = self._tried[0] / max(self._tried[1], 1e-9)
            if self._tried[1] > self._of_trial / 2:
                self._tried = [0, 0.0]
                self._trials.pop(0)
                if not self._trials:
                    self._end_trials()
        else:
            # Half of the news, as a single slice may have been interrupted, unless it is very bad.
            believed = 1.0 if seconds > self.limit else 0.5
            self._speeds[n_threads] += believed * (speed - self._speeds[n_threads])
            self._since_trials += seconds

    def _end_trials(self) -> None:
        before, _ = self._chosen
        best = max(self._speeds, key=self._speeds.__getitem__)
        self._chosen = best, self._speeds[best]
        examples, seconds = self._spent
        self._credit -= seconds - examples / self._speeds[best]
        lost, self._credit = max(0.0, -self._credit), max(0.0, self._credit)
        self._dear = lost / self.MOST_LOST
        if best != before:
            self._least_between = self.FIRST_SECONDS
        self._spent = [0, 0.0]
