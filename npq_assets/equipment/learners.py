"""The learners that the models of equipment and quality share: deterministic trees on tables, judged by groups.

What is predicted from what does not belong here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from npq_assets.boosting import lightgbm

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Learner(Protocol):
    """Fits a table and predicts another."""

    def __call__(self, x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
        """Prediction for `new` after learning y from x."""


def boosted(
    objective: str, *, trees: int, leaves: int = 31, rate: float = 0.05, least: int = 20, columns: float = 0.5,
    seeds: int = 1, classes: int = 1, **more: Any,
) -> Learner:  # fmt: skip
    """Gradient-boosted trees (LightGBM), averaged over seeds; predicts values, or probabilities for classifiers."""

    def learn(x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
        lgb = lightgbm()
        total: Any = 0.0
        for seed in range(seeds):
            parameters = {
                "objective": objective, "num_leaves": leaves, "learning_rate": rate, "min_data_in_leaf": least,
                "feature_fraction": columns, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0, "seed": seed,
                "deterministic": True, "force_row_wise": True, "verbosity": -1, "num_threads": 1, **more,
            }  # fmt: skip
            if classes > 1:
                parameters["num_class"] = classes
            data = lgb.Dataset(x, y, weight=weight, params={"verbosity": -1})
            total = total + np.asarray(lgb.train(parameters, data, num_boost_round=trees).predict(new, num_threads=1))
        return np.asarray(total / seeds, float)

    return learn


def random_trees(kind: str, *, trees: int = 300, least: int = 3, columns: float = 0.4, classes: int = 0) -> Learner:
    """Extremely randomized trees (Geurts et al. 2006); `kind` is regression, binary or classes, of which there are `classes`."""

    def learn(x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        words: dict[str, Any] = {
            "n_estimators": trees, "min_samples_leaf": least, "max_features": columns, "random_state": 0, "n_jobs": 1,
        }  # fmt: skip
        x, new = _filled(x, new)
        if kind == "regression":
            return np.asarray(ExtraTreesRegressor(**words).fit(x, y, sample_weight=weight).predict(new), float)
        model = ExtraTreesClassifier(**words).fit(x, y, sample_weight=weight)
        probability = _by_class(model, new, 2 if kind == "binary" else classes)
        return probability[:, 1] if kind == "binary" else probability

    return learn


def _by_class(model: Any, new: Array, classes: int) -> Array:
    """Probabilities, a column a class from 0: those of a class that was not among the rows learned from are 0."""
    named = np.asarray(model.classes_).astype(int)
    found = np.asarray(model.predict_proba(new), float)
    out = np.zeros((len(found), max(classes, int(named.max()) + 1)))
    out[:, named] = found
    return out


def smooth_classes(*, anchors: int = 500, width: float = 0.8, penalty: float = 0.1, classes: int = 0) -> Learner:
    """Multinomial logistic regression on a radial kernel (Nystroem; Williams and Seeger 2001) of normal scores of the columns.

    Smooth where trees cut: the two err on different rows.

    Args:
        anchors: Rows that the kernel is spanned by.
        width: Of the kernel: gamma is width / columns.
        penalty: Weight of the coefficients' squares.
        classes: How many classes there are, in rows learned from or not.
    """

    def learn(x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import QuantileTransformer, StandardScaler

        x, new = _filled(x, new)
        quantiles = min(300, len(x))
        for step in (
            QuantileTransformer(n_quantiles=quantiles, output_distribution="normal", random_state=0),
            StandardScaler(),
            Nystroem(gamma=width / x.shape[1], n_components=min(anchors, len(x)), random_state=0),
        ):
            x = step.fit_transform(x)
            new = step.transform(new)
        model = LogisticRegression(C=1 / penalty, max_iter=300).fit(x, y, sample_weight=weight)
        return _by_class(model, new, classes)

    return learn


def _filled(x: Array, new: Array) -> tuple[Array, Array]:
    """What is missing counts as the median of the rows learned from."""
    fill = np.nanmedian(x, axis=0)
    fill = np.where(np.isfinite(fill), fill, 0.0)
    return np.where(np.isfinite(x), x, fill), np.where(np.isfinite(new), new, fill)


def averaged(*learners: Learner) -> Learner:
    """The mean of several learners."""

    def learn(x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
        return np.asarray(np.mean([one(x, y, new, weight) for one in learners], axis=0), float)

    return learn


def beside_known(learner: Learner, place: Sequence[int], *, classes: int, count: int = 5, inner: int = 10) -> Learner:
    """A classifier that also sees which classes lie near: rows of one batch, plate or machine share their causes.

    Adds the distance to the nearest known row of each class and the shares of the classes among the `count` nearest, weighted
    by closeness (stacking with nearest neighbours; Wolpert 1992). Rows learned from see only rows of other folds, never their
    own label.

    Args:
        learner: Learns from the other columns and the new ones; y holds the classes' numbers from 0.
        place: Columns that say where a row lies, in comparable units; the learner itself does not see them.
        classes: How many there are.
        count: Nearest rows whose classes are looked at.
        inner: Folds of the rows learned from.
    """
    columns = list(place)

    def learn(x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
        inside = np.empty((len(x), 2 * classes))
        for known, asked in folds(np.arange(len(x)), min(inner, len(x))):
            inside[asked] = _near(x[known][:, columns], y[known], x[asked][:, columns], classes, count)
        outside = _near(x[:, columns], y, new[:, columns], classes, count)
        own = np.setdiff1d(np.arange(x.shape[1]), columns)
        return learner(np.hstack([x[:, own], inside]), y, np.hstack([new[:, own], outside]), weight)

    return learn


def _near(known: Array, y: Array, asked: Array, classes: int, count: int) -> Array:
    """Distance to the nearest row of each class (log of 1 + it), and weighted shares of the classes among the nearest."""
    from scipy.spatial import KDTree

    label = y.astype(int)
    far = np.full((len(asked), classes), 1e3)
    for k in np.unique(label):
        far[:, k] = KDTree(known[label == k]).query(asked)[0]
    count = min(count, len(known))
    distance, row = (np.asarray(found).reshape(len(asked), count) for found in KDTree(known).query(asked, k=count))
    share = np.zeros((len(asked), classes))
    for d, r in zip(distance.T, row.T, strict=True):
        share[np.arange(len(asked)), label[r]] += 1.0 / (1.0 + d)
    return np.hstack([np.log1p(far), share / share.sum(axis=1, keepdims=True)])


def folds(groups: NDArray[Any], count: int, seed: int = 0) -> Iterator[tuple[Index, Index]]:
    """Rows to learn from and rows to judge on; no group is in both."""
    names = np.unique(groups)
    fold_of = dict(
        zip(names.tolist(), (np.random.default_rng(seed).permutation(len(names)) % count).tolist(), strict=True)
    )
    fold = np.array([fold_of[g] for g in groups.tolist()])
    for k in range(count):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def cross_validated(learner: Learner, x: Array, y: Array, groups: NDArray[Any], count: int = 5, seed: int = 0) -> Array:
    """Every row predicted by a model that has not seen its group."""
    predicted: Array | None = None
    for learn, judge in folds(groups, count, seed):
        part = learner(x[learn], y[learn], x[judge])
        if predicted is None:
            predicted = np.zeros((len(y), *part.shape[1:]))
        predicted[judge] = part
    assert predicted is not None
    return predicted


def cheapest(candidates: dict[str, Learner], loss: Callable[[Learner], float]) -> tuple[str, dict[str, float]]:
    """The candidate of least loss, and all losses."""
    losses = {name: loss(learner) for name, learner in candidates.items()}
    return min(losses, key=lambda name: (losses[name], name)), losses
