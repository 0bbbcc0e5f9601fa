"""``python -m bench.quality``: scores, and a run that goes on where it was interrupted."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import quality

OPTIONS = ["--on", "iris,diabetes", "--contestants", "HistGradientBoosting,fastnn MLP"]


def run(path, *more):
    options = quality.parse([*OPTIONS, "--seeds", "1", "--json", str(path), *more])
    results = quality.Results(path)
    quality.run(options, results)
    return options, results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Options, results and their file."""
    path = tmp_path_factory.mktemp("finished") / "quality.jsonl"
    return *run(path), path


def test_a_run_goes_on_where_it_ended(finished, tmp_path, monkeypatch):
    _, results, whole = finished
    assert len(results.known) == 2 * 2 * 3
    path = shutil.copy(whole, tmp_path / "interrupted.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    made = []
    make = quality.CONTESTANTS["fastnn MLP"]
    monkeypatch.setitem(
        quality.CONTESTANTS, "fastnn MLP", lambda *args: made.append(args) or make(*args)
    )
    again = run(path)[1]
    assert made == [("regression", 0)]
    assert again.known.keys() == results.known.keys()


def test_the_report_ranks_and_compares(finished, capsys):
    options, results, _ = finished
    quality.show(options, results)
    printed = capsys.readouterr().out
    reference = next(line for line in printed.splitlines() if "HistGradient" in line[:30])
    assert "+0.000" in reference
    assert "| diabetes" in printed and "| iris" in printed


class Constant:
    """Predicts what it was made with."""

    def __init__(self, prediction):
        self.prediction = prediction

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.tile(self.prediction, (len(X), 1))


def test_a_class_that_was_not_trained_on_counts():
    X, y = pd.DataFrame({"a": np.zeros(6)}), np.array([0, 1, 0, 1, 2, 0])
    train, test = np.arange(4), np.arange(4, 6)
    scores = quality.evaluate(Constant([1.0, 0.0]), "multiclass", X, y, train, test)
    least = quality.LEAST_PROBABILITY
    total = 1 + 2 * least
    assert scores["loss"] == pytest.approx((-np.log(least / total) - np.log(1 / total)) / 2)
    assert scores["error"] == 0.5
