"""How good the predictions are: fastnn and others at their defaults, on real tables.

For example::

    pip install pandas pyarrow openpyxl lightgbm "pytabkit[models]"
    python -m bench.quality --json quality.jsonl               everything: many hours
    python -m bench.quality --on adult,wine --contestants "fastnn MLP,RandomForest"
    python -m bench.quality --json quality.jsonl --report      only print what is there

Each result is a line of the file as soon as it is there, and is not computed again: an interrupted
run goes on. The tables are brought by pip and kept in a folder, see ``tables``.
"""

import argparse
import json
import math
import sys
import time
import traceback
import warnings
from pathlib import Path
from statistics import mean, median

import numpy as np
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

from .contestants import CONTESTANTS, INSTALLED
from .report import describe, machine, number, table
from .tables import BUNDLED, TABLES, load

REFERENCE = "HistGradientBoosting"
SCORES = {  # both are better the lower they are
    "loss": "log-loss, or 1 - R² of regression",
    "error": "1 - AUC of two classes, errors of more, or 1 - R²",
}
# Some give a class no probability at all, for which the log-loss is infinite.
LEAST_PROBABILITY = 1e-4


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality",
        description="Cross-validate fastnn and others at their defaults on real tables; print the "
        "means as Markdown. Run it from the root of the repository. Contestants: "
        f"{', '.join(CONTESTANTS)}; those that are not installed are left out.",
    )
    everything = [*TABLES, *BUNDLED]
    parser.add_argument("--on", type=_some_of(everything), default=everything, metavar="TABLES")
    parser.add_argument(
        "--contestants", type=_some_of(INSTALLED), default=INSTALLED, metavar="NAMES"
    )
    parser.add_argument("--folds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--seeds", type=int, default=3, help="orders of the rows (default: 3)")
    parser.add_argument("--rows", type=int, default=10_000, help="at most (default: 10000)")
    parser.add_argument("--json", metavar="FILE", help="keep each result; go on from those there")
    parser.add_argument("--report", action="store_true", help="compute nothing, print FILE")
    parser.add_argument(
        "--tables",
        type=Path,
        default=Path.home() / ".cache" / "fastnn-bench-tables",
        metavar="DIR",
        help="where the tables are kept (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _some_of(known):
    def names(text):
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


class Results:
    """What is known: a dict of each contestant, table, number of rows, seed and fold."""

    KEY = ("table", "rows", "seed", "folds", "fold", "contestant")

    def __init__(self, path):
        self._path = path and Path(path)
        self.known = {}
        if path and self._path.exists():
            for line in self._path.read_text("utf-8").splitlines():
                result = json.loads(line)
                self.known[tuple(result[name] for name in self.KEY)] = result

    def add(self, result):
        self.known[tuple(result[name] for name in self.KEY)] = result
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")


def splits(y, task, rows, folds, seed):
    """Pairs of row numbers to train on and to test on, of at most ``rows`` rows."""
    chosen = np.random.default_rng(seed).permutation(len(y))[:rows]
    kind = KFold if task == "regression" else StratifiedKFold
    with warnings.catch_warnings():  # a class may have fewer rows than there are folds
        warnings.simplefilter("ignore")
        for train, test in kind(folds, shuffle=True, random_state=seed).split(chosen, y[chosen]):
            yield chosen[train], chosen[test]


def evaluate(model, task, X, y, train, test):
    """Fit to some rows, score on others: seconds, CPU seconds of all threads, and ``SCORES``."""
    seconds = {}

    def timed(name, function, *arguments):
        begun, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments)
        seconds[name] = time.perf_counter() - begun
        seconds[f"{name}_cpu"] = time.process_time() - cpu
        return result

    timed("fit", model.fit, X.iloc[train], y[train])
    predict = model.predict if task == "regression" else model.predict_proba
    prediction = timed("predict", predict, X.iloc[test])
    if task == "regression":
        loss = 1 - r2_score(y[test], prediction)
        return seconds | {"loss": loss, "error": loss}
    probabilities = np.full((len(test), y.max() + 1), LEAST_PROBABILITY)
    known = np.unique(y[train])
    probabilities[:, known] = np.maximum(prediction, LEAST_PROBABILITY)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    loss = log_loss(y[test], probabilities, labels=np.arange(y.max() + 1))
    if task == "binary":
        error = 1 - roc_auc_score(y[test], prediction[:, 1])
    else:
        error = 1 - accuracy_score(y[test], known[prediction.argmax(axis=1)])
    return seconds | {"loss": loss, "error": error}


def run(options, results):
    """Fill in what is not yet known, a seed at a time, so that an early end has a bit of all."""
    for seed in range(options.seeds):
        for name in options.on:
            X, y, task = load(name, options.tables)
            for fold, (train, test) in enumerate(
                splits(y, task, options.rows, options.folds, seed)
            ):
                for contestant in options.contestants:
                    key = (name, options.rows, seed, options.folds, fold, contestant)
                    if key in results.known:
                        continue
                    print(f"seed {seed}, {name}, fold {fold}, {contestant} ...", file=sys.stderr)
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            model = CONTESTANTS[contestant](task, seed)
                            scores = evaluate(model, task, X, y, train, test)
                    except Exception:  # one that fails has no result, and the others go on
                        traceback.print_exc()
                        continue
                    results.add(dict(zip(Results.KEY, key, strict=True)) | scores)


def means(options, results):
    """For each table and contestant the mean results of the splits that all of them have."""
    values = {}
    for name in options.on:
        found = {
            contestant: {
                (seed, fold): result
                for seed in range(options.seeds)
                for fold in range(options.folds)
                if (
                    result := results.known.get(
                        (name, options.rows, seed, options.folds, fold, contestant)
                    )
                )
            }
            for contestant in options.contestants
        }
        found = {contestant: splits for contestant, splits in found.items() if splits}
        common = set.intersection(*map(set, found.values())) if found else set()
        values[name] = {
            contestant: {
                what: mean(splits[split][what] for split in common)
                for what in ("loss", "error", "fit_cpu", "predict_cpu")
            }
            for contestant, splits in found.items()
            if common
        }
    return values


def summary(values, contestants, score):
    """Rows of the summary: what the mean over tables says of each contestant.

    Tables that a contestant has no result of are missing from its means.
    """
    rows = []
    for contestant in contestants:
        of_it = {name: by[contestant] for name, by in values.items() if contestant in by}
        if not of_it:
            continue
        ratios, ranks = [], []
        for name, result in of_it.items():
            all_scores = [other[score] for other in values[name].values()]
            ranks.append(1 + sum(value < result[score] for value in all_scores))
            if REFERENCE in values[name]:
                # Of a table that is learnt to perfection no ratio can be told.
                least = max(1e-4, values[name][REFERENCE][score])
                ratios.append(math.log(max(1e-4, result[score]) / least))
        rows.append(
            (
                contestant,
                f"{mean(ratios):+.3f}" if ratios else "",
                f"{median(ratios):+.3f}" if ratios else "",
                f"{mean(ranks):.2f}",
                number(mean(result["fit_cpu"] for result in of_it.values())),
                number(mean(result["predict_cpu"] for result in of_it.values())),
                str(len(of_it)),
            )
        )
    return rows


def show(options, results):
    values = means(options, results)
    regression = [name for name in options.on if (TABLES | BUNDLED)[name].task == "regression"]
    kinds = {
        "All tables": options.on,
        "Classification": [name for name in options.on if name not in regression],
        "Regression": regression,
    }
    header = (
        "", "mean log ratio", "median", "mean rank", "CPU s to fit", "to predict", "tables",
    )  # fmt: skip
    for score, meaning in SCORES.items():
        for kind, names in kinds.items():
            rows = summary({n: values[n] for n in names}, options.contestants, score)
            if rows:
                print(f"\n{kind}, {meaning}:\n\n{table(header, rows, markdown=True)}")
        present = [c for c in options.contestants if any(c in by for by in values.values())]
        rows = [
            (name, *(f"{by[c][score]:.4f}" if c in by else "" for c in present))
            for name, by in values.items()
            if by
        ]
        print(f"\nEach table, {meaning}:\n\n{table(('', *present), rows, markdown=True)}")


def main():
    options = parse()
    results = Results(options.json)
    if not options.report:
        run(options, results)
    show(options, results)
    print(
        f"\nMeans of {options.folds} folds of at most {options.rows} rows and {options.seeds} "
        f"order(s) of them; ratios to {REFERENCE}.\n{describe(machine())}."
    )


if __name__ == "__main__":
    main()
