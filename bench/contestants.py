"""Who takes part in ``quality``: each library at its defaults, with the preprocessing it needs."""

import importlib.util

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier as ScikitMLPClassifier
from sklearn.neural_network import MLPRegressor as ScikitMLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from fastnn import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor

NUMBERS = make_column_selector(dtype_include="number")
CATEGORIES = make_column_selector(dtype_include="category")


def encoded(model):
    """As guides to the MLP have it: numbers filled in and scaled, categories one-hot."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(
        make_column_transformer((numbers, NUMBERS), (categories, CATEGORIES)), model
    )


def as_numbers(model):
    """Categories as numbers, missing numbers as they are: what forests take."""
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1
    )
    return make_pipeline(
        make_column_transformer((codes, CATEGORIES), remainder="passthrough"), model
    )


def filled_in(model):
    """Missing numbers filled in, categories as they are: what pytabkit takes."""
    numbers = SimpleImputer(strategy="median", add_indicator=True)
    frames = make_column_transformer((numbers, NUMBERS), remainder="passthrough")
    return make_pipeline(frames.set_output(transform="pandas"), model)


def _mlp(task, seed):
    if task == "regression":
        return encoded(MLPRegressor(standardize_target=True, random_state=seed))
    return encoded(MLPClassifier(random_state=seed))


def _scikit_mlp(task, seed):
    model = ScikitMLPRegressor if task == "regression" else ScikitMLPClassifier
    return encoded(model(random_state=seed))


def tabular(**parameters):
    """The estimators for tables; ``parameters`` take parts of them away."""

    def make(task, seed):
        model = TabularRegressor if task == "regression" else TabularClassifier
        return model(random_state=seed, **parameters)

    return make


def _boosting(task, seed):
    if task == "regression":
        return HistGradientBoostingRegressor(random_state=seed)
    return HistGradientBoostingClassifier(random_state=seed)


def _forest(task, seed):
    model = RandomForestRegressor if task == "regression" else RandomForestClassifier
    return as_numbers(model(random_state=seed))


def _lightgbm(task, seed):
    import lightgbm

    model = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return model(random_state=seed, verbose=-1)


def realmlp(preset):
    def make(task, seed):
        import pytabkit

        kind = "Regressor" if task == "regression" else "Classifier"
        model = getattr(pytabkit, f"RealMLP_{preset}_{kind}")
        return filled_in(model(random_state=seed, device="cpu"))

    return make


CONTESTANTS = {  # name: function of task and seed that makes the estimator
    "HistGradientBoosting": _boosting,
    "RandomForest": _forest,
    "LightGBM": _lightgbm,
    "scikit-learn's MLP": _scikit_mlp,
    "fastnn MLP": _mlp,
    "fastnn tabular": tabular(),
    "- choice": tabular(numerical_embedding="piecewise_linear"),
    "- embedding": tabular(numerical_embedding=None),
    "- members": tabular(n_members=1),
    "- embedding, members": tabular(numerical_embedding=None, n_members=1),
    "RealMLP_TD_S": realmlp("TD_S"),
    "RealMLP_TD": realmlp("TD"),
}
_NEEDED = {"LightGBM": "lightgbm", "RealMLP_TD_S": "pytabkit", "RealMLP_TD": "pytabkit"}
INSTALLED = [
    name
    for name in CONTESTANTS
    if name not in _NEEDED or importlib.util.find_spec(_NEEDED[name]) is not None
]
