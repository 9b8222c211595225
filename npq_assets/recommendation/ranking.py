"""The learned ranking: LightGBM LambdaRank on purchases of a later time that the features did not see.

A model learns from several past cutoffs: features as of the cutoff, labels from the horizon that followed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.boosting import lightgbm
from npq_assets.recommendation.candidates import candidates
from npq_assets.recommendation.features import Known, Matrix, Settings, feature_names, know
from npq_assets.recommendation.purchases import Floats, Ints, Purchases


@dataclass(frozen=True)
class Training:
    """How the ranking is trained.

    Attributes:
        horizon: Days whose purchases are to be ranked first.
        cutoffs: Past cutoffs, each a horizon before the next.
        trees: Boosting rounds.
        learning_rate: Step of a round.
        leaves: Leaves of a tree.
        min_leaf: Rows of a leaf at least.
        models: Models of the LambdaRank objective, each with its own seed; as many of the logistic objective join them.
        sample: Share of the candidates that were not bought that is learnt from.
        threads: Threads.
        seed: Seed of everything random.
    """

    horizon: int = 28
    cutoffs: int = 3
    trees: int = 250
    learning_rate: float = 0.05
    leaves: int = 31
    min_leaf: int = 50
    models: int = 1
    pointwise: bool = True
    sample: float = 1.0
    max_users: int = 20_000
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Labelled candidates of several cutoffs; groups are customers at a cutoff.

    Attributes:
        x: Features (n, columns).
        y: Whether bought within the horizon (n).
        group: Candidates of each group, in order.
        names: Names of the columns.
    """

    x: Matrix
    y: NDArray[np.float32]
    group: Ints
    names: list[str]


@dataclass(frozen=True)
class Ranking:
    """A trained ranking.

    Attributes:
        boosters: LightGBM models as text, LambdaRank first.
        names: Columns that they expect.
        kinds: Objective of each.
        threads: Threads for prediction.
    """

    boosters: tuple[str, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    threads: int = 2
    _loaded: list[Any] = field(default_factory=list, repr=False, compare=False)

    def scores(self, x: Matrix) -> Floats:
        """The sum of standardized model scores; higher is better. Comparable within a customer and between them."""
        if not self._loaded:
            lgb = lightgbm()
            self._loaded.extend(lgb.Booster(model_str=text) for text in self.boosters)
        total = np.zeros(len(x))
        for model in self._loaded:
            total += np.asarray(model.predict(x, raw_score=True, num_threads=self.threads))
        return total / max(1, len(self.boosters))


def examples(
    purchases: Purchases,
    day: int,
    kinds: str,
    training: Training,
    settings: Settings | None = None,
    extra: Callable[[int], dict[str, Floats]] | None = None,
    sellable: NDArray[np.bool_] | None = None,
    known_at: Callable[[int], Known] | None = None,
) -> Examples:
    """Labelled candidates of the cutoffs day - horizon, day - 2 horizon …; nothing of `day` or later is used.

    Args:
        purchases: Lines.
        day: The last label lies before this day.
        kinds: `again`, `new` or `both`.
        training: Horizon, cutoffs, sampling.
        settings: How wide the models look.
        extra: Columns by product as of a day.
        sellable: Not used for labels of the past; here so that callers can restrict candidates.
        known_at: Gives what is known as of a cutoff, if it was computed before.
    """
    rng = np.random.default_rng(training.seed)
    xs, ys, groups, names = [], [], [], []
    for step in range(1, training.cutoffs + 1):
        cutoff = day - step * training.horizon
        if cutoff <= int(purchases.day.min(initial=day)) + training.horizon:
            break
        known = known_at(cutoff) if known_at else know(purchases, cutoff, settings, extra(cutoff) if extra else None)
        names = feature_names(known)
        truth = purchases.between(cutoff, cutoff + training.horizon).pairs()
        active = np.unique(truth // purchases.shape[1])
        if len(active) > training.max_users:
            active = np.sort(rng.choice(active, training.max_users, replace=False))
        for part in candidates(known, active, kinds, sellable):
            label = np.isin(part.user * purchases.shape[1] + part.item, truth)
            keep = label | (rng.random(len(label)) < training.sample)
            user, label = part.user[keep], label[keep]
            # A customer of whom nothing considered was bought teaches a ranking nothing.
            inside, position = np.unique(user, return_inverse=True)
            useful = np.bincount(position, label, minlength=len(inside))[position] > 0
            xs.append(part.x[keep][useful])
            ys.append(label[useful].astype(np.float32))
            groups.append(np.unique(user[useful], return_counts=True)[1])
    if not xs:
        return Examples(np.zeros((0, 0), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), names)
    return Examples(np.concatenate(xs), np.concatenate(ys), np.concatenate(groups).astype(np.int64), names)


def train(data: Examples, training: Training) -> Ranking:
    """LambdaRank (Burges 2010) cut at 20, and a logistic model of the same columns; their scores are averaged.

    Deterministic: the same examples give the same model.
    """
    lgb = lightgbm()
    boosters, kinds = [], []
    common = {
        "learning_rate": training.learning_rate,
        "num_leaves": training.leaves,
        "min_data_in_leaf": training.min_leaf,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": 127,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": training.threads,
        "verbosity": -1,
    }
    objectives: list[dict[str, Any]] = [{"objective": "lambdarank", "lambdarank_truncation_level": 20}]
    if training.pointwise:
        objectives.append({"objective": "binary"})
    for objective in objectives:
        ranked = objective["objective"] == "lambdarank"
        for k in range(training.models):
            frame = lgb.Dataset(
                data.x,
                data.y,
                group=data.group if ranked else None,
                feature_name=data.names,
                params={"max_bin": 127, "verbosity": -1},
            )
            model = lgb.train({**common, **objective, "seed": training.seed + k}, frame, training.trees)
            boosters.append(model.model_to_string())
            kinds.append(str(objective["objective"]))
    return Ranking(tuple(boosters), tuple(data.names), tuple(kinds), training.threads)


def rank(
    ranking: Ranking,
    known: Known,
    users: Ints,
    kinds: str,
    keep: int = 10,
    sellable: NDArray[np.bool_] | None = None,
    block: int | None = None,
) -> pl.DataFrame:
    """The best candidates of each customer.

    Returns:
        user, item (positions), score, rank, new, knn.
    """
    from npq_assets.recommendation.evaluation import top_lists

    found = []
    for part in candidates(known, users, kinds, sellable, block):
        best = top_lists(part.user, part.item, ranking.scores(part.x), keep)
        found.append(best)
    empty = {"user": pl.Int64, "item": pl.Int64, "score": pl.Float64, "rank": pl.Int64}
    return pl.concat(found) if found else pl.DataFrame(schema=empty)


def blend(models: Sequence[Floats]) -> Floats:
    """The mean of several scores."""
    return np.asarray(np.mean(np.stack(models), axis=0))
