"""Real texts that are on the machine: paragraphs of docstrings, and the package each is from.

Deterministic, given the versions of the packages. No word tells a class by itself: those with the
name of a package in them are left out of all texts. No paragraph is there twice, none is of two
packages, and those to learn from and those to be told are from different files.
"""

import ast
import importlib.util
import re
import zlib
from pathlib import Path

NAMED = ["jax", "matplotlib", "networkx", "numpy", "pandas", "polars", "scipy", "sklearn"]
NAMED += ["sympy", "torch"]
PACKAGES = [name for name in NAMED if importlib.util.find_spec(name)]
NAMES = re.compile(
    rf"\w*({'|'.join(NAMED)}|scikit)\w*|\b(jnp|mpl|np|nx|pd|pl|plt|sp)\b", re.IGNORECASE
)
LEAST_WORDS = 20
TEST_FILES = 5  # one in so many


def _paragraphs(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from re.split(r"\n\s*\n", ast.get_docstring(node) or "")


def _of_package(name):
    """``{words: (text, whether its file is one to test on)}`` of each paragraph."""
    folder = Path(importlib.util.find_spec(name).origin).parent
    found = {}
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(folder).as_posix()
        if re.search(r"test|extern|vendor", file):  # what others wrote, or no docstrings
            continue
        is_test = zlib.crc32(file.encode()) % TEST_FILES == 0
        for paragraph in _paragraphs(path):
            text = NAMES.sub(" ", paragraph)
            words = " ".join(re.findall(r"[a-z]{2,}", text.lower()))
            if words.count(" ") + 1 >= LEAST_WORDS:
                found.setdefault(words, (text, is_test))
    return found


def load_texts(n_train, n_test):
    """Texts and their classes, as many of each class: ``train, y_train, test, y_test``."""
    of_packages = [_of_package(name) for name in PACKAGES]
    several = set()
    for number, found in enumerate(of_packages):
        several.update(*(found.keys() & other.keys() for other in of_packages[:number]))
    parts = [], [], [], []
    for number, found in enumerate(of_packages):
        in_order = sorted(found.keys() - several, key=lambda words: zlib.crc32(words.encode()))
        for is_test, n, (texts, classes) in (
            (False, n_train, parts[:2]),
            (True, n_test, parts[2:]),
        ):
            mine = [found[words][0] for words in in_order if found[words][1] == is_test]
            mine = mine[: n // len(PACKAGES)]
            texts += mine
            classes += [number] * len(mine)
    return parts
