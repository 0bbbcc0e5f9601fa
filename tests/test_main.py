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


def rows_of(out):
    """What a table says of each library: accuracy, epochs, seconds, unit, examples a second."""
    lines = [line.split() for line in out.splitlines()]
    return [
        next(line[1:] for line in lines if line and line[0] == name and len(line) == 6)
        for name in ("fastnn", "scikit-learn")
    ]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_main_job_compares_both_libraries(run_python):
    out = run_python("-m", "fastnn", "--quick", "--max-iter", "30").stdout
    ours, theirs = rows_of(out)
    assert ours[0] == theirs[0] and float(ours[0]) > 0.9
    assert ours[1] == theirs[1] == "30"
    assert float(re.search(r"differ by at most (\S+) of", out)[1]) < 1e-8


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_times_are_medians_and_the_ratio_is_that_of_each_round(run, monkeypatch):
    """By a clock that goes on in fits alone, so that it is known what they take."""
    now = 0.0
    monkeypatch.setattr("fastnn.__main__.time", SimpleNamespace(perf_counter=lambda: now))
    for cls, seconds in [
        (fastnn.MLPClassifier, iter([1.0, 2.0, 4.0])),
        (neural_network.MLPClassifier, iter([9.0, 6.0, 20.0])),
    ]:

        def fit(self, X, y, fit=cls.fit, seconds=seconds):
            nonlocal now
            fitted = fit(self, X, y)
            now += next(seconds)
            return fitted

        monkeypatch.setattr(cls, "fit", fit)
    out = run("--rounds", "3", "--max-iter", "2")
    ours, theirs = rows_of(out)
    # 1347 of the 1797 digits are fitted, twice.
    assert ours[2:] == ["2.0000", "s", "1,347"]
    assert theirs[2:] == ["9.0000", "s", "299"]
    assert "fastnn trains 5.0 times as fast (median of 3" in out  # of 9, 3 and 5


def test_warmup_says_what_it_did(run, monkeypatch):
    out = run("warmup", "--dtype", "float64")
    assert out == "float64: was in the cache already\n"
    found = {"float32": True, "float64": False}
    monkeypatch.setattr("fastnn.__main__.warmup", lambda dtypes: found)
    assert run("warmup").endswith("float32: was in the cache already\nfloat64: compiled\n")


def test_help_and_errors(run):
    out = run("--help")
    assert "warmup" in out and "--rounds" in out
    assert "--rounds must be at least 1" in run("--rounds", "0", code=2)
    assert "invalid choice" in run("--dtype", "float16", code=2)
