"""Ranked products for every customer: what to buy again and what is new, by the simplest method that nothing clearly beats.

This is the one way from purchases to lists, for a corner shop and for 100,000 customers; sizes decide how wide it looks. What
a store has on the shelf, variety and reasons belong to the systems that show the lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from npq_assets.recommendation.candidates import candidates
from npq_assets.recommendation.evaluation import group_ndcg, top_lists
from npq_assets.recommendation.features import Known, Matrix, Settings, feature_names, know
from npq_assets.recommendation.purchases import Floats, Ints, Purchases
from npq_assets.recommendation.ranking import Examples, Training, examples, train

KINDS = ("again", "new")
LEARNED = "LambdaRank"
# The simplest first. Each is a column of the features; a later one replaces it only if it is better beyond chance.
SIMPLE = {
    "again": {"popularity": "item_baskets_h28", "repeat purchase": "baskets_h91", "item-kNN": "knn", "implicit ALS": "als"},
    "new": {"popularity": "item_baskets_h28", "item-kNN": "knn", "implicit ALS": "als"},
}  # fmt: skip
FALLBACK = {"again": "repeat purchase", "new": "popularity"}
LEAST_BOUGHT = 50


@dataclass(frozen=True)
class RankedLists:
    """Lists of all customers.

    Attributes:
        lists: user, item (positions), score, rank, kind (`again`, `new`).
        facts: By kind: the method chosen, and nDCG@10 of all methods on the last horizon.
    """

    lists: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def sizes(purchases: Purchases, horizon: int, seed: int = 0, threads: int = 1) -> tuple[Settings, Training]:
    """How wide to look and how long to train: as much as a number of customers bears."""
    customers = purchases.shape[0]
    training = Training(
        horizon, cutoffs=2, trees=60, min_leaf=20, pointwise=False, max_users=4_000, threads=threads, seed=seed
    )
    if customers <= 5_000:
        return Settings(16, 4, 50, per_source=20, again=60, min_buyers=2, seed=seed), training
    if customers <= 30_000:
        return Settings(32, 4, 50, per_source=20, again=60, seed=seed), training
    return Settings(32, 3, 50, per_source=15, again=40, seed=seed), replace(training, cutoffs=1, max_users=6_000)


def rank_products(
    purchases: Purchases, day: int, horizon: int = 28, keep: int = 30, seed: int = 0, threads: int = 1
) -> RankedLists:
    """Ranks products for every customer as of a day, to buy again and new ones.

    Methods are judged on the last horizon before the day: the learned ranking by models of the horizon before that, or, where
    a company is too large to look twice, of other customers. It is then trained on all horizons.

    Args:
        purchases: Lines; those of `day` and later are not looked at.
        day: The day about to open.
        horizon: Days whose purchases are to be ranked first.
        keep: Length of a list.
        seed: Of everything random.
        threads: Threads for training and prediction.
    """
    settings, training = sizes(purchases, horizon, seed, threads)
    past: list[dict[str, Examples]] = []
    for step in range(training.cutoffs):
        found = examples(purchases, day - step * horizon, "both", replace(training, cutoffs=1), settings)
        if not len(found.y):
            break
        past.append(_by_kind(found))
    score: dict[str, Callable[[Matrix], Floats]] = {}
    facts: dict[str, Any] = {}
    for kind in KINDS:
        score[kind], facts[f"ranking of {kind}"] = _method(kind, [one[kind] for one in past], training)
    del past
    known = know(purchases, day, settings)
    return RankedLists(_lists(known, score, keep), facts)


def _method(kind: str, past: list[Examples], training: Training) -> tuple[Callable[[Matrix], Floats], dict[str, Any]]:
    """How to score a kind, and what was judged: past horizons, the latest first."""
    if not past or past[0].y.sum() < LEAST_BOUGHT:
        name = FALLBACK[kind]
        note = "too few purchases to judge a ranking"
        return _Column(SIMPLE[kind][name]), {"method": name, "note": note}
    latest, names = past[0], past[0].names
    if len(past) > 1 and past[1].y.sum() >= LEAST_BOUGHT:
        judged, learning = latest, past[1]
    else:
        odd = np.arange(len(latest.group)) % 2 == 1
        judged, learning = _groups(latest, odd), _groups(latest, ~odd)
    methods = {name: judged.x[:, names.index(column)].astype(float) for name, column in SIMPLE[kind].items()}
    methods[LEARNED] = train(learning, training).scores(judged.x)
    gains = {name: group_ndcg(values, judged.y, judged.group) for name, values in methods.items()}
    chosen = next(iter(gains))
    for name in list(gains)[1:]:
        gain = gains[name] - gains[chosen]
        if gain.mean() > 1.96 * gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen = name
    facts = {
        "method": chosen,
        "customers judged": len(judged.group),
        "nDCG@10 among candidates": {name: round(float(values.mean()), 4) for name, values in gains.items()},
    }
    if chosen != LEARNED:
        return _Column(SIMPLE[kind][chosen]), facts
    return train(_joined(past), training).scores, facts


@dataclass(frozen=True)
class _Column:
    """Scores by one column of the features."""

    name: str
    names: list[str] = field(default_factory=list)

    def __call__(self, x: Matrix) -> Floats:
        return np.asarray(np.nan_to_num(x[:, self.names.index(self.name)]), float)


def _lists(known: Known, score: dict[str, Callable[[Matrix], Floats]], keep: int) -> pl.DataFrame:
    """The best of every customer who bought before the day, both kinds in one pass."""
    names = feature_names(known)
    score = {kind: replace(one, names=names) if isinstance(one, _Column) else one for kind, one in score.items()}
    found = []
    for part in candidates(known, np.unique(known.purchases.user), "both"):
        for kind, mine in (("again", ~part.new), ("new", part.new)):
            if mine.any():
                best = top_lists(part.user[mine], part.item[mine], score[kind](part.x[mine]), keep)
                small = best.with_columns(pl.col("user", "item").cast(pl.Int32), pl.col("score").cast(pl.Float32))
                found.append(small.with_columns(pl.lit(kind).cast(pl.Enum(KINDS)).alias("kind")))
    schema: dict[str, Any] = {
        "user": pl.Int32,
        "item": pl.Int32,
        "score": pl.Float32,
        "rank": pl.Int64,
        "kind": pl.Enum(KINDS),
    }
    return pl.concat(found) if found else pl.DataFrame(schema=schema)


def _by_kind(data: Examples) -> dict[str, Examples]:
    """Examples of products bought before and of new ones; groups in which nothing was bought teach a ranking nothing."""
    new = data.x[:, data.names.index("is_new")] > 0.5
    owner = np.repeat(np.arange(len(data.group)), data.group)
    out = {}
    for kind, mine in (("again", ~new), ("new", new)):
        hits = np.bincount(owner[mine], data.y[mine], minlength=len(data.group))
        keep = mine & (hits[owner] > 0)
        out[kind] = Examples(data.x[keep], data.y[keep], _sizes(owner[keep]), data.names)
    return out


def _groups(data: Examples, chosen: np.ndarray) -> Examples:
    """The groups chosen."""
    owner = np.repeat(np.arange(len(data.group)), data.group)
    keep = chosen[owner]
    return Examples(data.x[keep], data.y[keep], _sizes(owner[keep]), data.names)


def _sizes(owner: Ints) -> Ints:
    return np.unique(owner, return_counts=True)[1].astype(np.int64)


def _joined(past: list[Examples]) -> Examples:
    return Examples(
        np.concatenate([one.x for one in past]),
        np.concatenate([one.y for one in past]),
        np.concatenate([one.group for one in past]),
        past[0].names,
    )


__all__ = ["KINDS", "RankedLists", "rank_products", "sizes"]
