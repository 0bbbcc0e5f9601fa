"""Pictures of a fit: loss and validation score against the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Curve: TypeAlias = Mapping[str, Sequence[float] | None]

# Key of a curve, fitted attribute it is taken from, label, line style.
KINDS = [
    ("loss", "loss_curve_", "Training loss", "-"),
    ("validation_loss", "validation_loss_curve_", "Validation loss", "--"),
    ("validation_scores", "validation_scores_", "Validation score", ":"),
]


# Where meta-estimators keep the one model that they predict by: searches; those of a transformed
# target; those of thresholds, feature selection, self-training and others.
INNER_MODELS = ("best_estimator_", "regressor_", "estimator_")


class LossCurveDisplay:
    """Loss and validation score of one or several estimators, against the epoch.

    :meth:`from_estimator` and :meth:`from_estimators` make and draw one; scikit-learn's own MLPs
    will do as well. Losses belong to the left axis, scores to the right one. Each estimator has its
    colour, each kind of curve its line style; a vertical line marks the epoch of the best score.
    The legend is above the curves. Needs matplotlib.

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

    See Also
    --------
    MLPClassifier : Keeps the curves of its fit in ``loss_curve_`` and others.
    callbacks.History : The same numbers as a table, with learning rates and seconds.

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

    ax_: Axes
    score_ax_: Axes | None
    figure_: Figure
    lines_: list[Line2D]

    def __init__(self, curves: Mapping[str, Curve]) -> None:
        self.curves = curves

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        log: bool = False,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the curves of one fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``loss_curve_``, or one inside which there is such a model: a
            Pipeline that ends in it, a search (its ``best_estimator_``), a
            TransformedTargetRegressor and other meta-estimators that fit a single one.
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
            If it has no ``loss_curve_``, as with ``solver='lbfgs'``, or several models in it.
        ImportError
            If matplotlib is not installed.

        See Also
        --------
        from_estimators : Several in one picture.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastnn import LossCurveDisplay, MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=500, random_state=0).fit(X, y)
        >>> display = LossCurveDisplay.from_estimator(model, log=True)
        """
        name = type(_model_in(estimator)).__name__ if name is None else name
        return cls.from_estimators({name: estimator}, ax=ax, log=log, line_kw=line_kw)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any] | Sequence[Any],
        *,
        ax: Axes | None = None,
        log: bool = False,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
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
            If one has no ``loss_curve_``, as with ``solver='lbfgs'``, or several models in it.
        ImportError
            If matplotlib is not installed.

        See Also
        --------
        from_estimator : One alone.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastnn import LossCurveDisplay, MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> models = {
        ...     f"alpha={alpha}": MLPClassifier(alpha=alpha, max_iter=500, random_state=0).fit(X, y)
        ...     for alpha in (0.01, 1)
        ... }
        >>> display = LossCurveDisplay.from_estimators(models)
        """
        if not isinstance(estimators, Mapping):
            estimators = {
                f"{type(_model_in(estimator)).__name__} {i}": estimator
                for i, estimator in enumerate(estimators, 1)
            }
        curves = {name: _curves(name, estimator) for name, estimator in estimators.items()}
        return cls(curves).plot(ax, log=log, line_kw=line_kw)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        log: bool = False,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
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

        Examples
        --------
        >>> from fastnn import LossCurveDisplay
        >>> display = LossCurveDisplay({"by hand": {"loss": [0.9, 0.5, 0.4]}}).plot()
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
        figure: Any = ax.figure  # or a part of one
        self.ax_, self.figure_, self.score_ax_, self.lines_ = ax, figure, None, []
        if any(_has(curve, "validation_scores") for curve in self.curves.values()):
            self.score_ax_ = ax.twinx()
            self.score_ax_.set_ylabel("Validation score")
            self.figure_.sca(ax)  # plt.title and such are to act on the losses, not on the twin

        normalized = normalize_kwargs({} if line_kw is None else dict(line_kw), Line2D)
        # Of each name, and of each kind of curve a line: for the legend.
        colors: dict[str, Any] = {}
        kinds: dict[str, Line2D] = {}
        for name, curve in self.curves.items():
            colors[name] = self._draw(name, curve, kinds, normalized)

        ax.set(xlabel="Epoch", ylabel="Loss")
        locator = ax.xaxis.get_major_locator()
        if isinstance(locator, MaxNLocator):  # not where the caller has chosen the ticks
            locator.set_params(integer=True)
        if log:
            ax.set_yscale("log")
        # With several estimators, colours and line styles are explained one by one: there would be
        # too many pairs.
        several = len(self.curves) > 1
        names = [Line2D([], [], color=c, linewidth=4, label=name) for name, c in colors.items()]
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
        # The twin is on top, so the legend is in it.
        _legend_above(
            [axes for axes in (self.score_ax_, ax) if axes is not None],
            handles=names + handles if several else handles,
            title=None if several else next(iter(self.curves), None),
        )
        return self

    def _draw(
        self, name: str, curve: Curve, kinds: dict[str, Line2D], line_kw: dict[str, Any]
    ) -> Any:
        """Draw the curves of one estimator, and note each new kind; returns their colour."""
        color = None  # the next of the axes' cycle, then the same for all curves of this name
        for key, _, label, style in KINDS:
            values = curve.get(key)
            if values is None or len(values) == 0:
                continue
            defaults: dict[str, Any] = {
                "color": color,
                "linestyle": style,
                "marker": "o" if len(values) == 1 else None,  # a line of one point is none
            }
            ax: Any = self.score_ax_ if key == "validation_scores" else self.ax_
            (line,) = ax.plot(
                np.arange(1, len(values) + 1),
                values,
                label=f"{name}: {label}",
                **(defaults | line_kw),
            )
            color = line.get_color()
            self.lines_.append(line)
            kinds.setdefault(label, line)
        best = _best_epoch(curve)
        if best is not None:
            line = self.ax_.axvline(
                best, color=color, linestyle="-.", linewidth=1, label=f"{name}: Best epoch"
            )
            self.lines_.append(line)
            kinds.setdefault("Best epoch" if len(self.curves) > 1 else f"Best epoch ({best})", line)
        return color


def _legend_above(layers: list[Axes], handles: list[Line2D], title: str | None) -> None:
    """Draw a legend in the first of the axes, which lie upon each other, above the curves of all.

    It takes as many columns as fit in, and the data limits make room for it: who adds a curve, or
    fixes the limits, may do so.
    """
    whole = layers[0].get_window_extent()
    for n_columns in range(len(handles), 0, -1):
        legend = layers[0].legend(
            handles=handles,
            title=title,
            loc="upper center",
            ncols=n_columns,
            fontsize="small",
            columnspacing=1,
        )
        extent = legend.get_window_extent()
        if extent.width < 0.95 * whole.width:
            break
    part = (whole.y1 - extent.y0) / whole.height + 0.03
    part = min(part, 0.7)  # in the smallest axes, curves are more than a legend
    for axes in layers:
        scale = axes.yaxis.get_transform()
        low, high = axes.dataLim.intervaly
        if axes.get_yscale() == "log":
            low = axes.dataLim.minposy
        low, high = scale.transform(np.array([low, high]))
        if np.isfinite(high - low):  # not if all are NaN
            _, margin = axes.margins() or (0.0, 0.0)  # which the axes add at both ends
            below = (1 - part) * (1 + 2 * margin) - margin
            (top,) = scale.inverted().transform(np.array([low + (high - low) / below]))
            axes.update_datalim([(1, top)], updatex=False)
            axes.autoscale_view(scalex=False)


def _model_in(estimator: Any) -> Any:
    """The model inside of pipelines and meta-estimators; the estimator itself, if it is none."""
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
            continue
        several = getattr(estimator, "estimators_", None)
        if several is None:
            calibrated = getattr(estimator, "calibrated_classifiers_", ())
            several = [classifier.estimator for classifier in calibrated]
        inner = [getattr(estimator, name) for name in INNER_MODELS if hasattr(estimator, name)]
        if len(several) == 1:
            inner = list(several)
        if len(several) > 1 or not inner:
            return estimator
        estimator = inner[0]


def _curves(name: str, estimator: Any) -> Curve:
    """The curves that a fitted estimator has kept."""
    estimator = _model_in(estimator)
    check_is_fitted(estimator)
    # Checked first: what an earlier fit with another solver has left is not of this one.
    if getattr(estimator, "solver", None) == "lbfgs":
        raise ValueError(f"{name} has no loss curve: solver='lbfgs' keeps none.")
    for several in ("estimators_", "calibrated_classifiers_"):
        if hasattr(estimator, several):
            raise ValueError(
                f"{name} has no loss curve of its own, but {len(getattr(estimator, several))} "
                f"fitted models in {several}: give those to from_estimators."
            )
    if getattr(estimator, "refit", True) is False:
        raise ValueError(
            f"{name} has no loss curve: with refit=False a search keeps no model; take refit=True."
        )
    if not hasattr(estimator, "loss_curve_"):
        raise ValueError(f"{name} has no loss curve: there is no attribute loss_curve_.")
    return {key: getattr(estimator, attribute, None) for key, attribute, _, _ in KINDS}


def _has(curve: Curve, key: str) -> bool:
    values = curve.get(key)
    return values is not None and len(values) > 0


def _best_epoch(curve: Curve) -> int | None:
    """The first epoch with the highest score, as early stopping takes it; NaN is never best."""
    scores = curve.get("validation_scores")
    if scores is None or np.isnan(scores).all():
        return None
    return int(np.nanargmax(scores)) + 1
