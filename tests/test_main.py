"""The command line: ``python -m fastnn``."""

import re
from types import SimpleNamespace

import pytest
from sklearn import neural_network

import fastnn
import fastnn.__main__


@pytest.fixture
def run(capsys):
    """``run(*arguments, code=0)``: what the command prints, in this process."""

    def run(*arguments, code=0):
        try:
            assert fastnn.__main__.main(arguments) == code
        except SystemExit as end:  # of argparse
            assert end.code == code
        return "".join(capsys.readouterr())

    return run


def row_of(out, job):
    """Seconds of fastnn and scikit-learn, ratio, and the accuracy of both, of a job."""
    line = next(line for line in out.splitlines() if line.startswith(job))
    found = re.fullmatch(r"([\d.]+) s +([\d.]+) s +([\d.]+)x *(.*)", line[len(job) :].strip())
    return [float(number) for number in (*found.groups()[:3], *found[4].split())]


def test_the_main_job_compares_both_libraries(run):
    out = run("--quick", "--max-iter", "30")
    *_, ours, theirs = row_of(out, "one fit")
    assert ours == theirs > 0.9
    assert "cross-validation" not in out
    assert re.search(r"kernels were (loaded from disk|compiled) in \d", out)


@pytest.mark.nightly
def test_both_libraries_find_the_same_candidate(run):
    out = run("--max-iter", "5")
    for job in ("one fit", "5-fold cross-validation", "grid search, 12 x 3 fits, n_jobs=2"):
        *_, ours, theirs = row_of(out, job)
        assert ours == theirs > 0.2
    best = re.findall(r"best with \S+: +(.+)", out)
    assert best[0] == best[1] and "alpha" in best[0]


def test_the_ratio_is_that_of_the_times(run, monkeypatch):
    """By a clock that goes on in fits alone, so that it is known what they take."""
    now = 0.0
    monkeypatch.setattr("fastnn.__main__.time", SimpleNamespace(perf_counter=lambda: now))
    for cls, seconds in [(fastnn.MLPClassifier, 2.0), (neural_network.MLPClassifier, 9.0)]:

        def fit(self, X, y, fit=cls.fit, seconds=seconds):
            nonlocal now
            fitted = fit(self, X, y)
            now += seconds
            return fitted

        monkeypatch.setattr(cls, "fit", fit)
    monkeypatch.delitem(fastnn.__main__.JOBS, "grid search, 12 x 3 fits, n_jobs=2")
    out = run("--max-iter", "2")
    assert row_of(out, "one fit")[:3] == [2, 9, 4.5]
    assert row_of(out, "5-fold cross-validation")[:3] == [10, 45, 4.5]
    assert row_of(out, "all of it")[:3] == [12, 54, 4.5]
    assert "loaded from disk in 0.00 s" in out


def test_warmup_says_what_it_did(run, monkeypatch):
    out = run("warmup", "--dtype", "float64")
    assert out == "float64: was in the cache already\n"
    found = {"float32": True, "float64": False}
    monkeypatch.setattr("fastnn.__main__.warmup", lambda dtypes: found)
    assert run("warmup").endswith("float32: was in the cache already\nfloat64: compiled\n")


def test_help_and_errors(run):
    out = run("--help")
    assert "warmup" in out and "--max-iter" in out
    assert "--max-iter must be at least 1" in run("--max-iter", "0", code=2)
    assert "invalid choice" in run("--dtype", "float16", code=2)
