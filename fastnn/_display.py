"""Pictures of a fit: loss and validation score against the epoch."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

# Key of a curve, fitted attribute it is taken from, label, line style.
KINDS = [
    ("loss", "loss_curve_", "Training loss", "-"),
    ("validation_loss", "validation_loss_curve_", "Validation loss", "--"),
    ("validation_scores", "validation_scores_", "Validation score", ":"),
]


class LossCurveDisplay:
    """Loss and validation score of one or several estimators, against the epoch.

    :meth:`from_estimator` and :meth:`from_estimators` make and draw one; scikit-learn's own MLPs
    will do as well. Losses belong to the left axis, scores to the right one. Each estimator has its
    colour, each kind of curve its line style; a vertical line marks the epoch of the best score.
    Needs matplotlib.

    Parameters
    ----------
    curves : dict of str to dict
        For each name, the curves it has: 'loss', 'validation_loss', 'validation_scores', each with
        one number per epoch, from the first. What is missing, None or empty is not drawn.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the losses.
    score_ax_ : matplotlib Axes or None
        The axes with the scores, over ``ax_``; None without scores. The legend is in the upper one.
    figure_ : matplotlib Figure
        The figure they are in.
    lines_ : list of matplotlib Line2D
        For each name its curves, in the order above, then the mark of the best epoch. Their labels
        say what they are.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastnn import LossCurveDisplay, MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(early_stopping=True, random_state=0).fit(X, y)
    >>> display = LossCurveDisplay.from_estimator(model, name="iris")
    >>> for line in display.lines_:
    ...     print(line.get_label())
    iris: Training loss
    iris: Validation loss
    iris: Validation score
    iris: Best epoch
    """

    def __init__(self, curves):
        self.curves = curves

    @classmethod
    def from_estimator(cls, estimator, *, name=None, ax=None, log=False, line_kw=None):
        """Draw the curves of one fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``loss_curve_``, or a Pipeline that ends in one.
        name : str, default=None
            What to call it; None is the name of its class.
        ax : matplotlib Axes, default=None
            Where to draw; None is a new figure.
        log : bool, default=False
            Whether the axis of the losses is logarithmic.
        line_kw : dict, default=None
            More arguments of matplotlib's ``plot``, for all curves.

        Returns
        -------
        display : LossCurveDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If it has no ``loss_curve_``, as with ``solver='lbfgs'``.
        ImportError
            If matplotlib is not installed.
        """
        name = type(_last_step(estimator)).__name__ if name is None else name
        return cls.from_estimators({name: estimator}, ax=ax, log=log, line_kw=line_kw)

    @classmethod
    def from_estimators(cls, estimators, *, ax=None, log=False, line_kw=None):
        """Draw the curves of several fitted estimators, to compare them.

        Parameters
        ----------
        estimators : dict of str to estimator, or list of estimator
            Fitted estimators as for :meth:`from_estimator`. Those of a list are called by their
            class and place, such as 'MLPClassifier 1'.
        ax : matplotlib Axes, default=None
            Where to draw; None is a new figure.
        log : bool, default=False
            Whether the axis of the losses is logarithmic.
        line_kw : dict, default=None
            More arguments of matplotlib's ``plot``, for all curves.

        Returns
        -------
        display : LossCurveDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If an estimator is not fitted.
        ValueError
            If one has no ``loss_curve_``, as with ``solver='lbfgs'``.
        ImportError
            If matplotlib is not installed.
        """
        if not hasattr(estimators, "items"):
            estimators = {
                f"{type(_last_step(estimator)).__name__} {i}": estimator
                for i, estimator in enumerate(estimators, 1)
            }
        curves = {name: _curves(name, estimator) for name, estimator in estimators.items()}
        return cls(curves).plot(ax, log=log, line_kw=line_kw)

    def plot(self, ax=None, *, log=False, line_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None is a new figure.
        log : bool, default=False
            Whether the axis of the losses is logarithmic.
        line_kw : dict, default=None
            More arguments of matplotlib's ``plot``, for all curves.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
            from matplotlib.cbook import normalize_kwargs
            from matplotlib.lines import Line2D
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise ImportError(
                "LossCurveDisplay needs matplotlib to draw: pip install matplotlib"
            ) from error

        if ax is None:
            _, ax = plt.subplots()
        self.ax_, self.figure_, self.score_ax_, self.lines_ = ax, ax.figure, None, []
        if any(_has(curve, "validation_scores") for curve in self.curves.values()):
            self.score_ax_ = ax.twinx()
            self.score_ax_.set_ylabel("Validation score")
            self.figure_.sca(ax)  # plt.title and such are to act on the losses, not on the twin

        several = len(self.curves) > 1
        line_kw = normalize_kwargs(line_kw, Line2D)
        names, kinds = [], {}  # of the legend
        for name, curve in self.curves.items():
            color = None  # the next of the axes' cycle, then the same for all curves of this name
            for key, _, label, style in KINDS:
                if not _has(curve, key):
                    continue
                values = curve[key]
                (line,) = (self.score_ax_ if key == "validation_scores" else ax).plot(
                    np.arange(1, len(values) + 1),
                    values,
                    label=f"{name}: {label}",
                    **{
                        "color": color,
                        "linestyle": style,
                        "marker": "o" if len(values) == 1 else None,  # a line of one point is none
                        **line_kw,
                    },
                )
                color = line.get_color()
                self.lines_.append(line)
                kinds.setdefault(label, line)
            best = _best_epoch(curve)
            if best is not None:
                line = ax.axvline(
                    best, color=color, linestyle="-.", linewidth=1, label=f"{name}: Best epoch"
                )
                self.lines_.append(line)
                kinds.setdefault("Best epoch" if several else f"Best epoch ({best})", line)
            names.append(Line2D([], [], color=color, linewidth=4, label=name))

        ax.set(xlabel="Epoch", ylabel="Loss")
        locator = ax.xaxis.get_major_locator()
        if isinstance(locator, MaxNLocator):  # not where the caller has chosen the ticks
            locator.set_params(integer=True)
        if log:
            ax.set_yscale("log")
        # With several estimators, colours and line styles are explained one by one: there would be
        # too many pairs.
        handles = [
            Line2D(
                [],
                [],
                color="gray" if several else line.get_color(),
                linestyle=line.get_linestyle(),
                linewidth=line.get_linewidth(),
                label=label,
            )
            for label, line in kinds.items()
        ]
        # The twin is on top, so the legend is in it. There matplotlib would not see the losses,
        # but between falling losses and rising scores there is room.
        (self.score_ax_ or ax).legend(
            handles=names + handles if several else handles,
            title=None if several else next(iter(self.curves), None),
            loc="center right" if self.score_ax_ else "best",
        )
        return self


def _last_step(estimator):
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    return estimator


def _curves(name, estimator):
    """The curves that a fitted estimator has kept."""
    estimator = _last_step(estimator)
    check_is_fitted(estimator)
    # Checked first: what an earlier fit with another solver has left is not of this one.
    if getattr(estimator, "solver", None) == "lbfgs":
        raise ValueError(f"{name} has no loss curve: solver='lbfgs' keeps none.")
    if not hasattr(estimator, "loss_curve_"):
        raise ValueError(f"{name} has no loss curve: there is no attribute loss_curve_.")
    return {key: getattr(estimator, attribute, None) for key, attribute, _, _ in KINDS}


def _has(curve, key):
    return curve.get(key) is not None and len(curve[key]) > 0


def _best_epoch(curve):
    """The first epoch with the highest score, as early stopping takes it; NaN is never best."""
    if not _has(curve, "validation_scores") or np.isnan(curve["validation_scores"]).all():
        return None
    return int(np.nanargmax(curve["validation_scores"])) + 1
