"""A subclass in user code does with fastnn's MLPs whatever it does with scikit-learn's."""

import abc
import copy
import dataclasses
import gc
import threading
from functools import partial
from typing import Generic, TypeVar

import cloudpickle
import numpy as np
import pytest
import sklearn
from sklearn import neural_network as sk
from sklearn.base import TransformerMixin, clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastnn
from fastnn import MLPClassifier, MLPRegressor, backpropagation
from fastnn._one_at_a_time import _turns, turn
from fastnn._state import state_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning"),
]

X, Y = load_iris(return_X_y=True)
X, Y = X[::2], Y[::2]
SETTINGS = dict(hidden_layer_sizes=(6,), max_iter=4, random_state=0)


def classes_of(model):
    return {"classes": np.unique(Y)} if is_classifier(model) else {}


# Each takes an MLP and returns a subclass, all of whose parameters have a default. The subclasses
# are local, as in a notebook or a test.


def with_nothing_more(Base):
    class Subclass(Base):
        pass

    return partial(Subclass, **SETTINGS)


def with_fewer_parameters(Base):
    class Subclass(Base):
        def __init__(self, alpha=0.1):
            super().__init__(**SETTINGS, alpha=alpha)

    return Subclass


def with_no_parameters(Base):
    class Subclass(Base):
        def __init__(self):
            super().__init__(**SETTINGS)

    return Subclass


def with_more_parameters(Base):
    class Subclass(Base):
        def __init__(self, shift=0.5, alpha=0.1, random_state=0):
            settings = SETTINGS | {"random_state": random_state}
            super().__init__(**settings, alpha=alpha)
            self.shift = shift

        def fit(self, X, y):
            return super().fit(X + self.shift, y)

        def predict(self, X):
            return super().predict(X + self.shift)

    return Subclass


def with_renamed_parameters(Base):
    class Subclass(Base):
        def __init__(self, units=6, epochs=4, seed=0):
            super().__init__(hidden_layer_sizes=(units,), max_iter=epochs, random_state=seed)
            self.units, self.epochs, self.seed = units, epochs, seed

    return Subclass


def with_any_keyword(Base):
    class Subclass(Base):
        def __init__(self, alpha=0.1, **kwargs):
            super().__init__(**{"alpha": alpha, **SETTINGS, **kwargs})

    return Subclass


def with_any_argument(Base):
    class Subclass(Base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    return partial(Subclass, **SETTINGS)


def that_sets_what_sklearn_has(Base):
    """Without ``super().__init__``."""
    defaults = vars(getattr(sk, Base.__name__)())

    class Subclass(Base):
        def __init__(self, alpha=0.1):
            vars(self).update(defaults | SETTINGS)
            self.alpha = alpha

    return Subclass


def with_class_attributes(Base):
    """For defaults, without ``__init__``'s own attributes."""
    defaults = vars(getattr(sk, Base.__name__)())

    class Subclass(Base):
        def __init__(self, alpha=0.1):
            self.alpha = alpha

    for name, value in (defaults | SETTINGS).items():
        setattr(Subclass, name, value)
    return Subclass


def with_slots(Base):
    class Subclass(Base):
        __slots__ = ("alpha", "coefs_", "loss_curve_", "note")

    return partial(Subclass, **SETTINGS)


def with_properties(Base):
    class Subclass(Base):
        def __init__(self, strength=0.1):
            self.strength = strength
            super().__init__(**SETTINGS)

        @property
        def alpha(self):
            return 2 * self.strength

        @alpha.setter
        def alpha(self, value):
            pass

        @property
        def coefs_(self):
            try:
                return self.weights["W"]
            except AttributeError:
                raise NotFittedError from None

        @coefs_.setter
        def coefs_(self, value):
            self.weights = {"W": value}

    return Subclass


def with_equality(Base):
    """By parameters, and so without a hash."""

    class Subclass(Base):
        def __eq__(self, other):
            return type(other) is type(self) and other.get_params() == self.get_params()

    return partial(Subclass, **SETTINGS)


def with_equality_and_hash(Base):
    class Subclass(Base):
        def __eq__(self, other):
            return type(other) is type(self)

        def __hash__(self):
            return 1

    return partial(Subclass, **SETTINGS)


def with_equality_by_element(Base):
    """As an array has it: the result has no truth value, and the class no hash."""

    class Subclass(Base):
        def __eq__(self, other):
            return np.array([True, False])

    return partial(Subclass, **SETTINGS)


def of_dataclasses(Base):
    @dataclasses.dataclass
    class Subclass(Base):
        alpha: float = 0.1
        seed: int = 0

        def __post_init__(self):
            settings = SETTINGS | {"random_state": self.seed}
            super().__init__(**settings, alpha=self.alpha)

    return Subclass


def that_is_false(Base):
    class Subclass(Base):
        def __bool__(self):
            return False

        def __len__(self):
            return 0

        def __iter__(self):
            return iter(())

        def __contains__(self, item):
            return False

    return partial(Subclass, **SETTINGS)


def with_getattr(Base):
    class Subclass(Base):
        def __getattr__(self, name):
            if name.startswith("_") or name.endswith("_"):
                raise AttributeError(name)
            return None

    return partial(Subclass, **SETTINGS)


def that_is_frozen(Base):
    """After a fit it allows no new attributes."""

    class Subclass(Base):
        def __setattr__(self, name, value):
            if name != "frozen" and vars(self).get("frozen"):
                raise TypeError(name)
            super().__setattr__(name, value)

        def fit(self, X, y):
            self.frozen = False
            super().fit(X, y)
            self.frozen = True
            return self

        def partial_fit(self, X, y, **classes):
            self.frozen = False
            super().partial_fit(X, y, **classes)
            self.frozen = True
            return self

    return partial(Subclass, **SETTINGS)


def with_own_pickles(Base):
    class Subclass(Base):
        def __getstate__(self):
            state = vars(self).copy()
            return {"format": 1, "content": state}

        def __setstate__(self, state):
            vars(self).update(state["content"])

    return partial(Subclass, **SETTINGS)


def with_own_getstate(Base):
    class Subclass(Base):
        def __getstate__(self):
            return super().__getstate__() | {"saved": True}

    return partial(Subclass, **SETTINGS)


def with_reduce(Base):
    class Subclass(Base):
        def __reduce__(self):
            return _rebuilt, (type(self), vars(self).copy())

    return partial(Subclass, **SETTINGS)


def _rebuilt(kind, attributes):
    model = kind()
    vars(model).update(attributes)
    return model


def that_does_not_copy(Base):
    class Subclass(Base):
        def __reduce_ex__(self, protocol):
            raise TypeError("it stays here")

    return partial(Subclass, **SETTINGS)


def with_a_lock(Base):
    class Subclass(Base):
        def __init__(self, alpha=0.1):
            super().__init__(**SETTINGS, alpha=alpha)
            self._lock = threading.Lock()

    return Subclass


def with_own_clone(Base):
    class Subclass(Base):
        def __sklearn_clone__(self):
            twin = type(self)(**self.get_params())
            twin.cloned = True
            return twin

    return partial(Subclass, **SETTINGS)


def that_is_called(Base):
    class Subclass(Base):
        def __call__(self, X):
            return self.predict(X)

    return partial(Subclass, **SETTINGS)


def with_other_methods(Base):
    """Whose signatures and results are others."""

    class Subclass(Base):
        def fit(self, X, y, verbose=0, **more):
            super().fit(np.asarray(X), y)
            self.extra_ = verbose
            return self

        def predict(self, X, offset=0):
            return {"prediction": super().predict(X)}["prediction"] + self.extra_

        def score(self, X, y, scale=2.0):
            return scale * super().score(X, y)

        def predict_proba(self, X, *, digits=3):
            return super().predict_proba(X).round(digits)

    if not is_classifier(Base()):
        del Subclass.predict_proba
    return partial(Subclass, **SETTINGS, early_stopping=True)


def that_fits_by_parts(Base):
    class Subclass(Base):
        def fit(self, X, y):
            for name in ("coefs_", "classes_"):
                vars(self).pop(name, None)
            for _ in range(3):
                self.partial_fit(X, y, **classes_of(self))
            return self

    return partial(Subclass, **SETTINGS)


def with_mixins(Base):
    class Hidden(TransformerMixin):
        def transform(self, X):
            return np.maximum(X @ self.coefs_[0] + self.intercepts_[0], 0)

        def get_feature_names_out(self, input_features=None):
            return np.array([f"unit{i}" for i in range(self.coefs_[0].shape[1])])

    class Named:
        def __init__(self, *, label="a", **kwargs):
            self.label = label
            super().__init__(**kwargs)

    class Subclass(Hidden, Named, Base):
        def __init__(self, label="b", alpha=0.1):
            super().__init__(label=label, alpha=alpha, **SETTINGS)

    return Subclass


def of_an_abstract_base(Base):
    class Abstract(Base, abc.ABC):
        @abc.abstractmethod
        def name(self): ...

    class Subclass(Abstract):
        def name(self):
            return "here"

    return partial(Subclass, **SETTINGS)


def of_a_metaclass(Base):
    class Registering(abc.ABCMeta):
        known = []

        def __new__(cls, *args, **kwargs):
            made = super().__new__(cls, *args, **kwargs)
            cls.known.append(made.__name__)
            return made

        def __call__(cls, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    class Subclass(Base, metaclass=Registering):
        pass

    return partial(Subclass, **SETTINGS)


def that_says_when_it_is_fitted(Base):
    class Subclass(Base):
        def __sklearn_is_fitted__(self):
            return getattr(self, "ready", False)

        def fit(self, X, y):
            super().fit(X, y)
            self.ready = True
            return self

    return partial(Subclass, **SETTINGS)


def with_constraints_and_tags(Base):
    class Subclass(Base):
        _parameter_constraints = {**Base._parameter_constraints, "shift": [float]}

        def __init__(self, shift=0.5):
            super().__init__(**SETTINGS)
            self.shift = shift

        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.non_deterministic = True
            return tags

    return Subclass


def of_a_generic_class(Base):
    T = TypeVar("T")

    class Subclass(Base, Generic[T]):
        def __new__(cls, *args, **kwargs):
            made = super().__new__(cls)
            made.made = True
            return made

        def __getattribute__(self, name):
            return super().__getattribute__(name)

    return partial(Subclass[int], **SETTINGS)


def of_a_subclass(Base):
    class Subclass(with_renamed_parameters(Base)):
        def __init__(self, units=6, depth=1):
            super().__init__(units=units)
            self.depth = depth

    return Subclass


KINDS = [
    with_nothing_more,
    with_fewer_parameters,
    with_no_parameters,
    with_more_parameters,
    with_renamed_parameters,
    with_any_keyword,
    with_any_argument,
    that_sets_what_sklearn_has,
    with_class_attributes,
    with_slots,
    with_properties,
    with_equality,
    with_equality_and_hash,
    with_equality_by_element,
    of_dataclasses,
    that_is_false,
    with_getattr,
    that_is_frozen,
    with_own_pickles,
    with_own_getstate,
    with_reduce,
    that_does_not_copy,
    with_a_lock,
    with_own_clone,
    that_is_called,
    with_other_methods,
    that_fits_by_parts,
    with_mixins,
    of_an_abstract_base,
    of_a_metaclass,
    that_says_when_it_is_fitted,
    with_constraints_and_tags,
    of_a_generic_class,
    of_a_subclass,
]

LIBRARIES = {"scikit-learn": sk, "fastnn": fastnn}


def numbers_of(model):
    """What its predictions, weights and curve are."""
    results = [model.predict(X), model.score(X, Y), *model.coefs_, *model.intercepts_]
    if is_classifier(model):
        results += [model.predict_proba(X), model.predict_log_proba(X)]
    return [np.asarray(a, float) for a in [*results, getattr(model, "loss_curve_", ())]]


def fitted(make):
    return make().fit(X, Y)


def fits(make):
    return numbers_of(fitted(make))


def fits_again(make):
    return numbers_of(fitted(make).set_params(alpha=0.3).fit(X, Y))


def goes_on(make):
    model = fitted(make)
    for _ in range(2):
        model.partial_fit(X, Y)
    return numbers_of(model)


def begins_with_partial_fit(make):
    model = make()
    return numbers_of(model.partial_fit(X, Y, **classes_of(model)))


def starts_warm(make):
    model = fitted(make)
    model.warm_start = True
    return numbers_of(model.fit(X, Y))


def is_cloned(make):
    return numbers_of(clone(clone(fitted(make))).fit(X, Y))


def is_copied(make):
    return numbers_of(copy.copy(fitted(make)))


def is_copied_deeply(make):
    return numbers_of(copy.deepcopy(fitted(make)))


def is_pickled(make):
    return numbers_of(cloudpickle.loads(cloudpickle.dumps(fitted(make))))


def is_pickled_unfitted(make):
    return numbers_of(cloudpickle.loads(cloudpickle.dumps(make())).fit(X, Y))


def goes_on_after_pickling(make):
    return numbers_of(cloudpickle.loads(cloudpickle.dumps(fitted(make))).partial_fit(X, Y))


def is_shown(make):
    model = fitted(make)
    assert "Subclass" in repr(model) and "Subclass" in model._repr_html_()
    return [len(model.get_params()) > 0]


def is_in_a_pipeline(make):
    model = make_pipeline(StandardScaler(), make()).set_output(transform="default").fit(X, Y)
    return [model.predict(X)]


def is_cross_validated(make):
    return [cross_val_score(make(), X, Y, cv=3)]


def is_searched(make):
    search = GridSearchCV(make(), {"alpha": [0.1, 1.0]}, cv=2).fit(X, Y)
    return [search.cv_results_["mean_test_score"], search.predict(X)]


def is_searched_in_processes(make):
    search = GridSearchCV(make(), {"alpha": [0.1, 1.0]}, cv=2, n_jobs=2, error_score="raise")
    return [search.fit(X, Y).cv_results_["mean_test_score"]]


def is_routed_to(make):
    with sklearn.config_context(enable_metadata_routing=True):
        model = make().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model).fit(X, Y, sample_weight=Y + 1.0)
        return [pipeline.predict(X)]


def stops_early(make):
    model = make()
    model.early_stopping = True
    return numbers_of(model.fit(X, Y))


def predicts_unfitted(make):
    return [make().predict(X)]


def is_not_fitted_by_its_weights_alone(make):
    model = fitted(make)
    model.ready = False
    return [model.predict(X)]


USES = [
    fits,
    fits_again,
    goes_on,
    begins_with_partial_fit,
    starts_warm,
    is_cloned,
    is_copied,
    is_copied_deeply,
    is_pickled,
    is_pickled_unfitted,
    goes_on_after_pickling,
    is_shown,
    is_in_a_pipeline,
    is_cross_validated,
    is_searched,
    is_routed_to,
    stops_early,
    predicts_unfitted,
    is_not_fitted_by_its_weights_alone,
]

ESTIMATORS = ["MLPClassifier", "MLPRegressor"]


def outcome(use, make):
    """Numbers, or the exception."""
    try:
        return use(make)
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "kind, name",
    [
        pytest.param(kind, name, marks=() if (i + j) % 2 == 0 else pytest.mark.nightly)
        for i, kind in enumerate(KINDS)
        for j, name in enumerate(ESTIMATORS)
    ],
)
def test_what_works_with_sklearn_works(kind, name):
    different = []
    for use in USES:
        theirs = outcome(use, kind(getattr(sk, name)))
        ours = outcome(use, kind(getattr(fastnn, name)))
        if isinstance(theirs, Exception):
            same = type(ours) is type(theirs)
        else:
            same = not isinstance(ours, Exception) and all(
                np.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(ours, theirs, strict=True)
            )
        if not same:
            different.append((use.__name__, ours, theirs))
    assert not different


@pytest.mark.parametrize("kind", [with_fewer_parameters, of_dataclasses, with_equality])
def test_a_search_in_processes_takes_a_local_subclass(kind):
    scores = [
        GridSearchCV(kind(Base)(), {"alpha": [0.1, 1.0]}, cv=2, n_jobs=2, error_score="raise")
        .fit(X, Y)
        .cv_results_["mean_test_score"]
        for Base in (sk.MLPClassifier, MLPClassifier)
    ]
    np.testing.assert_allclose(*scores)


PICKLED = [
    with_nothing_more,
    with_fewer_parameters,
    with_no_parameters,
    with_more_parameters,
    with_renamed_parameters,
    with_any_keyword,
    with_properties,
    of_dataclasses,
    with_getattr,
    with_mixins,
    of_a_metaclass,
    of_a_subclass,
]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", PICKLED)
def test_one_that_an_older_version_saved_has_no_attribute_too_few_or_too_many(kind, name):
    """Saved before any of the parameters that scikit-learn's has not."""
    Base = getattr(fastnn, name)
    model = fitted(kind(Base))
    new = set(Base().get_params()) - set(getattr(sk, name)().get_params()) | {"_scaling"}
    state = {key: value for key, value in vars(model).items() if key not in new}
    loaded = object.__new__(type(model))
    loaded.__setstate__(copy.deepcopy(state))
    assert set(vars(loaded)) == set(state)
    assert loaded.get_params() == model.get_params()
    for ours, expected in zip(numbers_of(loaded), numbers_of(model), strict=True):
        np.testing.assert_array_equal(ours, expected)
    loaded.partial_fit(X, Y), model.partial_fit(X, Y)
    for ours, expected in zip(numbers_of(loaded), numbers_of(model), strict=True):
        np.testing.assert_array_equal(ours, expected)
    clone(loaded).fit(X, Y)


def test_equal_estimators_do_not_wait_for_each_other():
    make = with_equality_and_hash(MLPClassifier)
    first, second = make(), make()
    assert first == second and hash(first) == hash(second)
    for going_on in (False, True):
        with turn(first, going_on):
            thread = threading.Thread(target=second.fit, args=(X, Y), daemon=True)
            thread.start()
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(with_nothing_more, marks=pytest.mark.nightly),
        pytest.param(with_equality, marks=pytest.mark.nightly),
        with_equality_and_hash,
    ],
)
def test_nothing_stays_of_an_estimator_that_is_gone(kind):
    gc.collect()
    before = len(_turns)
    model = fitted(kind(MLPClassifier))
    assert len(_turns) == before + 1
    del model
    gc.collect()
    assert len(_turns) == before


@pytest.mark.parametrize("kind", [with_slots, with_properties, that_is_frozen, that_is_false])
@pytest.mark.parametrize("before", ["unfitted", "fitted", "going on"])
def test_a_failed_fit_leaves_a_subclass_as_it_was(kind, before):
    Base = MLPClassifier
    model = kind(Base)()
    if before != "unfitted":
        Base.fit(model, X, Y)
        expected = numbers_of(model)
    state = state_of(model)
    vars(model)["warm_start"] = before == "going on"

    def interrupt(*args):
        raise ZeroDivisionError

    vars(model)["learning_rate"] = lambda epoch: 0.1 if epoch < 2 else interrupt()
    with pytest.raises(ZeroDivisionError):
        Base.fit(model, X, Y)
    vars(model)["warm_start"] = False
    vars(model)["learning_rate"] = "constant"
    for now, then in zip(state_of(model), state, strict=True):
        assert now.keys() == then.keys()
    if before != "unfitted":
        for now, then in zip(numbers_of(model), expected, strict=True):
            np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    "kind", [*PICKLED[:3], with_any_keyword, with_slots, with_equality, of_dataclasses, with_mixins]
)
def test_given_weights_make_a_subclass(kind):
    rng = np.random.RandomState(0)
    weights = [rng.rand(4, 6), rng.rand(6, 1)], [rng.rand(6), rng.rand(1)]
    make = kind(MLPRegressor)
    cls = make.func if isinstance(make, partial) else make
    model = cls.from_weights(*weights)
    assert type(model) is cls
    np.testing.assert_array_equal(model.predict(X), MLPRegressor.from_weights(*weights).predict(X))


def test_sizes_that_a_subclass_fixes_are_those_of_given_weights():
    cls = with_renamed_parameters(MLPRegressor)
    weights = [np.ones((4, 3)), np.ones((3, 1))], [np.ones(3), np.ones(1)]
    assert cls.from_weights(*weights, units=3).units == 3
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=\(6,\) differs from the \(3,\)"):
        cls.from_weights(*weights)


@pytest.mark.parametrize(
    "kind", [with_slots, with_own_pickles, with_reduce, that_does_not_copy, with_equality]
)
def test_backpropagation_looks_into_a_subclass_that_does_not_copy(kind):
    model = fitted(kind(MLPClassifier))
    np.testing.assert_allclose(backpropagation(model, X, Y).a[-1], model.predict_proba(X))


@pytest.mark.parametrize(
    "kind", [with_fewer_parameters, with_any_keyword, with_equality, with_getattr, that_is_false]
)
def test_callbacks_of_a_subclass(kind, after_epochs):
    accuracies = []
    model = kind(MLPClassifier)()
    model.set_callbacks(after_epochs(lambda _, now: accuracies.append(now.score(X, Y))))
    model.fit(X, Y)
    assert len(accuracies) == model.n_iter_ and accuracies[-1] == model.score(X, Y)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    "kind",
    [with_slots, with_properties, with_own_pickles, with_reduce, that_does_not_copy, with_a_lock],
)
def test_a_scorer_is_given_a_subclass_as_it_is_after_the_epoch(kind, name):
    scored = []

    def scorer(model, X, y):
        scored.append((type(model), model.predict(X)))
        return model.score(X, y)

    model = kind(getattr(fastnn, name))()
    model.scoring = scorer
    model.fit(X, Y, X_val=X, y_val=Y)
    assert [cls for cls, _ in scored] == [type(model)] * model.n_iter_
    np.testing.assert_array_equal(scored[-1][1], model.predict(X))
    if is_classifier(model):
        model.scoring = None
        assert model.fit(X, Y, X_val=X, y_val=Y).validation_scores_[-1] == model.score(X, Y)
    else:
        assert not np.array_equal(scored[0][1], scored[-1][1])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_subclass_of_both_libraries(name):
    """For code that asks whether a model is one of scikit-learn's."""
    ours, theirs = getattr(fastnn, name), getattr(sk, name)

    class Both(ours, theirs):
        pass

    model = Both(**SETTINGS, early_stopping=True).fit(X, Y)
    plain = ours(**SETTINGS, early_stopping=True).fit(X, Y)
    assert isinstance(model, theirs) and isinstance(model, ours)
    assert model.get_params() == plain.get_params()
    for a, b in zip(numbers_of(clone(model).fit(X, Y)), numbers_of(plain), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_abstract_method_must_be_there(name):
    for library in (sk, fastnn):

        class Abstract(getattr(library, name)):
            @abc.abstractmethod
            def name(self): ...

        with pytest.raises(TypeError, match="abstract"):
            Abstract()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_another_class_may_be_registered_as_one(name):
    for library in (sk, fastnn):
        Base = getattr(library, name)

        class Base(Base):
            pass

        class Other:
            pass

        Base.register(Other)
        assert isinstance(Other(), Base)
