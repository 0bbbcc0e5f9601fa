"""
When to stop
============

Loss and validation score of three fits against the epoch. The training loss falls and falls; the
validation loss says when it is enough.
"""

from sklearn.datasets import load_digits

from fastnn import LossCurveDisplay, MLPClassifier

X, y = load_digits(return_X_y=True)
settings = dict(
    standardize=True, early_stopping=True, scoring="loss", n_iter_no_change=20, random_state=0
)
models = {
    f"learning_rate_init={rate}": MLPClassifier(learning_rate_init=rate, **settings).fit(X, y)
    for rate in (1e-3, 3e-3, 1e-2)
}
for name, model in models.items():
    print(f"{name}: best epoch {model.best_epoch_}, then {model.stop_reason_}")

# %%
# One of them alone:

LossCurveDisplay.from_estimator(models["learning_rate_init=0.003"], log=True)

# %%
# And all three, to compare:

LossCurveDisplay.from_estimators(models, log=True)
