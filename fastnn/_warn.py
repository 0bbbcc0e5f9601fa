"""Warnings under the line of the user's code that they are about."""

import contextlib
import os
import sys
import warnings

import joblib
import sklearn

# A pipeline, a search or a callback may stand between the user's line and fastnn.
_INNER = (
    *(
        os.path.abspath(folder) + os.sep
        for folder in (os.path.dirname(__file__), *sklearn.__path__, *joblib.__path__)
    ),
    contextlib.__file__,
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn under the innermost line that is neither fastnn's nor scikit-learn's.

    Parameters
    ----------
    message : str
    category : type of Warning
    """
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INNER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_of_namesake() -> None:
    """Warn, under the line that imports fastnn, of the project called fastnn on PyPI.

    Both distributions have a folder ``fastnn``, and overwrite each other's files in it.
    """
    site_packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        names = os.listdir(site_packages)
    except OSError:  # in an archive
        return
    for name in names:
        if name.startswith("fastnn-") and name.endswith(".dist-info"):
            version = name.removeprefix("fastnn-").removesuffix(".dist-info")
            warnings.warn(
                f"The distribution fastnn {version} is another project, and is installed into the "
                "same folder as this one, fastnn-mlp. To have this one whole: "
                "pip uninstall fastnn fastnn-mlp; pip install fastnn-mlp",
                stacklevel=3,
            )
