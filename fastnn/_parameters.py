"""The parameters that both estimators have: what they are, and what is allowed."""

from __future__ import annotations

import inspect
import itertools
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if

from ._activations import HIDDEN_ACTIVATIONS, OUT_ACTIVATIONS
from ._schedules import SCHEDULES
from ._typing import Estimator, Method
from .kernels.rules import SOLVERS

_PARAMETERS = """hidden_layer_sizes : int or array-like of int, default=(100,)
        Number of units of each hidden layer. ``()`` is a linear model.
    activation : str, (str, float), or list of these, default='relu'
        Activation function of the hidden layers, or a list with that of each. k is 1 for 'linear'
        and 'elu', 0 for 'step', 0.01 for 'leaky_relu'; a pair gives another: ``('elu', 0.5)``.

        ============  =================================  ==========================================
        name          function of z
        ============  =================================  ==========================================
        'identity'    z
        'linear'      k z
        'logistic'    1 / (1 + exp(-z))
        'tanh'        tanh(z)
        'relu'        max(0, z)
        'leaky_relu'  z if z > 0 else k z                Maas et al., 2013
        'elu'         z if z > 0 else k (exp(z) - 1)     Clevert et al., 2016 [5]_
        'selu'        'elu' with fixed scales            for layers that keep mean and variance [6]_
        'gelu_erf'    z (1 + erf(z / sqrt(2))) / 2       PyTorch's default GELU [7]_
        'gelu'        the same, approximated by tanh     faster
        'silu'        z / (1 + exp(-z))                  also called swish
        'softplus'    log(1 + exp(z))                    a smooth 'relu'
        'step'        1 if z >= k else 0                 for given weights alone: has no slope
        ============  =================================  ==========================================
    solver : str, default='adam'
        How the weights are optimised.

        =========  ================================================================================
        'adam'     mini-batches, a rate for each weight [2]_
        'adamw'    'adam' with ``weight_decay`` apart from the gradient [4]_
        'nadam'    'adam' with Nesterov's momentum
        'rmsprop'  a rate for each weight, without momentum; ``beta_2`` is its decay
        'adagrad'  rates that only fall; for sparse X
        'sgd'      mini-batches, one rate, ``momentum``
        'lbfgs'    the whole set at once; for small sets, to the bottom of the loss
        =========  ================================================================================
    alpha : float, default=0.0001
        Strength of the L2 penalty ``alpha / 2 * sum(W**2)``, divided by the size of the mini-batch.
    batch_size : int, 'auto' or 'full', default='auto'
        Examples in a mini-batch; 'auto' is ``min(200, n_samples)``, 'full' is all examples: batch
        gradient descent. Not used by 'lbfgs'.
    learning_rate : str or callable, default='constant'
        Schedule of the learning rate. Those of epochs are for every solver but 'lbfgs', and are
        spread over ``max_iter`` epochs.

        ============  =============================================================================
        'constant'    ``learning_rate_init``
        'invscaling'  'sgd' alone: ``learning_rate_init / (t + 1)**power_t`` after t examples
        'adaptive'    'sgd' alone: divided by 5 when progress stalls for ``n_iter_no_change`` epochs
        'cosine'      epochs: falls to 0 along half a cosine
        'one_cycle'   epochs: up from 1/25 in the first 30 %, then down to 1e-4 of it [8]_
        'step'        epochs: divided by 10 after each third
        'warmup'      epochs: rises linearly in the first 5 %, rounded up, and stays
        a callable    epochs: gives the rate of each, counted from 0
        ============  =============================================================================

        Each ``fit`` begins at epoch 0, also with ``warm_start``; ``partial_fit`` counts on, and
        past ``max_iter`` the rate stays. Training may stop earlier: see ``n_iter_no_change``.
    learning_rate_init : float, default=0.001
        Initial learning rate of 'sgd' and 'adam'; the highest of the schedules over epochs.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Maximum number of epochs ('sgd', 'adam') or iterations ('lbfgs').
    shuffle : bool, default=True
        Whether to visit the examples in a new order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the validation split and the shuffling.
    tol : float, default=1e-4
        What counts as progress of the loss, or of the validation score with ``early_stopping``.
    verbose : bool, int or 'progress', default=False
        Whether to print the progress: scikit-learn's lines, or where there is more to tell (given
        validation examples, ``scoring``, a schedule over epochs) one line for each epoch with
        losses, score, learning rate and seconds. 'progress' is a progress bar of ``fit`` (needs
        tqdm).
    warm_start : bool, default=False
        Whether ``fit`` goes on from the present weights. A copy that a callback was given after an
        epoch (``fitted_estimator``) goes on with that very fit, as if it had never stopped.
    momentum : float in [0, 1], default=0.9
        Momentum of 'sgd'.
    nesterovs_momentum : bool, default=True
        Whether that is Nesterov's.
    early_stopping : bool, default=False
        Whether to set ``validation_fraction`` of the examples aside, stop when their score does
        not improve, and keep the weights of the best epoch. The examples given to ``fit`` as
        ``X_val`` take their place. On small tables the score of a classifier, its accuracy, is too
        coarse to stop by and costs much (.81 instead of .98 on the wines): take
        ``scoring='loss'``.
    validation_fraction : float in [0, 1), default=0.1
        The fraction set aside. 0 goes with ``early_stopping`` only where ``X_val`` is given.
    beta_1 : float in [0, 1), default=0.9
        Decay of Adam's first moments.
    beta_2 : float in [0, 1), default=0.999
        Decay of Adam's second moments.
    epsilon : float, default=1e-8
        Adam's guard against division by zero.
    n_iter_no_change : int or inf, default=10
        Epochs without progress before training stops.
    max_fun : int, default=15000
        Maximum number of loss evaluations of 'lbfgs'.
    n_threads : int or None, default=None
        Number of threads, within what the process may use: fewer while other programs are in the
        way. -1 is all that it may use, -2 all but one, and so on. None: as many as pay off for the
        size of the network and mini-batch. The results do not depend on it, to the last bit.
    out_activation : str, (str, float) or None, default=None
        Activation function of the output layer; None is the one that belongs to the loss.
    init : {{'glorot', 'he', 'notes'}} or (list of ndarray, list of ndarray), default='glorot'
        Initial weights: uniform as in scikit-learn [1]_; normal with variance
        2 / fan_in and biases 0 [3]_; normal with variance 1 / fan_in and biases 1, as
        in the notes; or given, ``(coefs, intercepts)`` in the shapes of ``coefs_``, of which
        copies are trained.
    standardize : bool, default=False
        Whether to train on features of mean 0 and variance 1. Afterwards that is part of the first
        layer: the fitted network takes X as it is. Sparse features are scaled, not centred, as by
        ``StandardScaler(with_mean=False)``. Training that goes on keeps the first means and scales.
        X is not copied for it.
    dropout : float in [0, 1) or list of float, default=0
        Probability with which each hidden unit is left out in a training step, for all hidden
        layers or for each; what is left is scaled up (inverted dropout [9]_).
    weight_decay : float, default=0.01
        Decoupled weight decay of 'adamw' [4]_; not of biases.
    clip_norm : float or None, default=None
        Largest Euclidean norm of the gradient of a mini-batch; longer ones are scaled down to it.
    max_time : float or None, default=None
        Seconds of training, without compiling, after which it ends at the end of an epoch (or
        iteration of 'lbfgs'), without a warning.
    scoring : str, callable or None, default=None
        What the validation score is: None is {score}, 'loss' is minus the validation loss, else
        the name of a scorer of scikit-learn or a function of (estimator, X, y), and
        ``sample_weight`` where there are weights.
    weight_average : float in (0, 1), int or None, default=None
        An int k: the fitted weights are the mean of those after each of the last k epochs
        [10]_. A float: their exponential moving average with this decay, bias
        corrected. The average is over the epochs of one ``fit`` and takes the place of the
        weights at its end; losses and scores are of the weights before. So ``partial_fit`` leaves
        the weights as they are, and the next fit with ``warm_start`` goes on from the average.
        Not with ``early_stopping``, which keeps other weights. Not used by 'lbfgs'.
    lazy_update : bool, default=False
        For sparse X of many features, such as text, in small mini-batches: update only those rows
        of the first layer's weights, and of the solver's moments, whose features occur in the
        mini-batch (MXNet's name; PyTorch's SparseAdam, TensorFlow's LazyAdam). The time of an
        update then grows with the entries of X, not with the weights. By the exact rules, weights
        of other features go on by their momentum, decay, and are penalised by ``alpha``; this is
        left out, also in the losses. Not with dense X, nor with 'lbfgs'.
    {more_parameters}

    Attributes
    ----------
    coefs_ : list of ndarray of shape (n_in, n_out)
        Weights of each layer, of X's dtype.
    intercepts_ : list of ndarray of shape (n_out,)
        Biases of each layer.
    loss_ : float
        Loss of the last epoch, or at the end of 'lbfgs'.
    best_loss_ : float or None
        Lowest loss of all epochs; None with ``early_stopping``. Not with 'lbfgs'.
    loss_curve_ : list of float
        Loss of each epoch. Not with 'lbfgs'.
    validation_scores_ : list of float or None
        Score of each epoch on the validation examples: {score}, or ``scoring``. Not with 'lbfgs'.
    best_validation_score_ : float or None
        The highest of them. Not with 'lbfgs'.
    best_epoch_ : int or None
        The epoch in which that was, from 1 as in ``validation_scores_``: with ``early_stopping``
        the weights are those of this epoch. Not with 'lbfgs'.
    stop_reason_ : str
        Why training ended: 'no_improvement', 'max_iter', 'max_time', 'diverged' (with
        ``early_stopping``, which keeps the best epoch), 'callback', 'interrupted' or 'partial_fit';
        of 'lbfgs' also 'converged', 'max_fun' and 'line_search'.
    validation_loss_curve_ : list of float or None
        Loss of each epoch on the validation examples, without the penalty. Not with 'lbfgs'.
    n_iter_ : int
        Number of epochs or iterations of the last fit.
    t_ : int
        Number of training examples seen by all fits together.
    n_layers_ : int
        Number of layers, the input layer among them.
    n_outputs_ : int
        Number of output units.
    out_activation_ : str
        Activation function of the output layer.
    n_features_in_ : int
        Number of features of X.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any."""


NOTES = """Notes
    -----
    float32 X is computed with as float32, about twice as fast; all else as float64. The results are
    the same to the last bit for any number of threads. The first fit of an installation compiles
    for 10 to 25 seconds, see ``warmup``.

    References
    ----------
    .. [1] Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward
       neural networks.
    .. [2] Kingma and Ba (2015), Adam: A method for stochastic optimization.
    .. [3] He et al. (2015), Delving deep into rectifiers.
    .. [4] Loshchilov and Hutter (2019), Decoupled weight decay regularization.
    .. [5] Clevert et al. (2016), Fast and accurate deep network learning by exponential linear
       units.
    .. [6] Klambauer et al. (2017), Self-normalizing neural networks.
    .. [7] Hendrycks and Gimpel (2016), Gaussian error linear units.
    .. [8] Smith (2018), A disciplined approach to neural network hyper-parameters: Part 1.
    .. [9] Srivastava et al. (2014), Dropout: A simple way to prevent neural networks from
       overfitting.
    .. [10] Izmailov et al. (2018), Averaging weights leads to wider optima and better
       generalization."""


def parameters(score: str, more_parameters: str) -> str:
    """The text on parameters and attributes for the docstring of an estimator."""
    return _PARAMETERS.format(score=score, more_parameters=more_parameters)


CONSTRAINTS = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions(set(HIDDEN_ACTIVATIONS)), list, tuple],
    "solver": [StrOptions({"lbfgs", *SOLVERS})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto", "full"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive", *SCHEDULES}), callable],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose", StrOptions({"progress"})],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [
        Interval(Integral, 1, None, closed="left"),
        Options(Real, {np.inf}),
    ],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "n_threads": [
        None,
        Interval(Integral, 1, None, closed="left"),
        Interval(Integral, None, -1, closed="right"),
    ],
    "out_activation": [None, StrOptions(set(OUT_ACTIVATIONS)), tuple],
    "init": [StrOptions({"glorot", "he", "notes"}), tuple, list],
    "standardize": ["boolean"],
    "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "clip_norm": [None, Interval(Real, 0, None, closed="neither")],
    "max_time": [None, Interval(Real, 0, None, closed="neither")],
    "scoring": [None, str, callable],
    "weight_average": [
        None,
        Interval(Integral, 1, None, closed="left"),
        Interval(RealNotInt, 0, 1, closed="neither"),
    ],
    "lazy_update": ["boolean"],
}


def of_mini_batches(method: Method) -> Method:
    """Hide a method from estimators whose solver goes through the whole set: ``partial_fit``."""
    return available_if(lambda self: self._supports_partial_fit())(method)


def own_defaults(estimator_class: type[Estimator]) -> type[Estimator]:
    """Give a class the defaults of those parameters that scikit-learn's has not, as attributes.

    For an estimator that an older version has saved, and one of a subclass whose ``__init__`` sets
    all that scikit-learn knows by itself.
    """
    parameters = inspect.signature(estimator_class.__init__).parameters.values()
    for parameter in itertools.dropwhile(lambda p: p.name != "n_threads", parameters):
        setattr(estimator_class, parameter.name, parameter.default)
    return estimator_class


def set_parameters(estimator: object, parameters: dict[str, Any]) -> None:
    """Set attributes from the ``locals()`` of an ``__init__``, which has two long lists of them.

    scikit-learn wants the names in the signature, and each as an attribute.
    """
    for name, value in parameters.items():
        if name != "self":
            setattr(estimator, name, value)
