"""What is called after each epoch: scikit-learn's callbacks, and the progress bar."""

import contextlib

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:
        pass

    def with_callbacks(method):
        return method


class Tasks:
    """A fit and its epochs or iterations, as the tasks of scikit-learn's callbacks.

    Parameters
    ----------
    estimator : BaseMLP
    name : str
        Name of a subtask.
    max_subtasks : int
    attributes : callable
        ``attributes()`` are those of a fitted copy of the estimator as it is.
    called : bool
        Whether the callbacks are called: they belong to ``fit``, not to ``partial_fit``.
    **data
        X, y and metadata as the user gave them, for the hooks that ask for them.
    """

    def __init__(self, estimator, name, max_subtasks, attributes, called, **data):
        self._context = None
        # Also those that a pipeline or a search handed down.
        if called and hasattr(estimator, "_skl_callbacks"):
            self._context = estimator._init_callback_context(max_subtasks=max_subtasks)
        self._name, self._task = name, None
        # Computed only for a hook that asks for the fitted estimator.
        self._arguments = dict(data, estimator=estimator, reconstruction_attributes=attributes)

    def __enter__(self):
        if self._context is not None:
            self._context.call_on_fit_task_begin(**self._arguments)
        return self

    def __exit__(self, exception, *_):
        if self._context is not None and exception is None:
            self._context.call_on_fit_task_end(**self._arguments)

    def begin(self):
        """Begin an epoch."""
        if self._context is not None:
            self._task = self._context.subcontext(task_name=self._name)
            self._task.call_on_fit_task_begin(**self._arguments)

    def end(self):
        """End it; returns whether a callback wants training to stop."""
        if self._task is None:
            return False
        task, self._task = self._task, None
        return task.call_on_fit_task_end(**self._arguments)


def progress_bar(estimator, unit, incremental=False):
    """A context manager for a tqdm bar over the epochs, or for None if there is to be none."""
    if not shows_progress(estimator) or incremental:
        return contextlib.nullcontext()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("verbose='progress' needs tqdm: `pip install tqdm`.") from error
    return tqdm(total=estimator.max_iter, desc=type(estimator).__name__, unit=unit)


def shows_progress(estimator):
    return isinstance(estimator.verbose, str)


def prints(estimator):
    return bool(estimator.verbose) and not shows_progress(estimator)
