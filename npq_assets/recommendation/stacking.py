"""Choices made once, such as ratings or durable goods: several collaborative scores ranked by a model of held-out choices.

Each part of the choices is hidden once, scored by models that have not seen it, and a LambdaRank learns from all parts which
scores to trust for whom (stacking, Wolpert 1992). Purchases that come again belong to `ranking`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from npq_assets.boosting import lightgbm
from npq_assets.recommendation.evaluation import top_lists
from npq_assets.recommendation.factors import Matrix, ease, implicit_factors, item_neighbours
from npq_assets.recommendation.purchases import Floats, Ints


@dataclass(frozen=True)
class Choices:
    """Who chose what, each pair once; n choices.

    Attributes:
        user: Positions of customers (n).
        item: Positions of items (n).
        moment: When, in days (n); zeros where unknown.
        strength: How much it was liked (n); ones where unknown.
        shape: Number of customers and of items.
    """

    user: Ints
    item: Ints
    moment: Floats
    strength: Floats
    shape: tuple[int, int]

    def where(self, mask: NDArray[np.bool_]) -> Choices:
        """The choices of the mask."""
        return Choices(self.user[mask], self.item[mask], self.moment[mask], self.strength[mask], self.shape)

    def matrix(self, values: Floats | None = None) -> sparse.csr_matrix:
        """Customers x items with ones, or with `values` (n)."""
        data = np.ones(len(self.user)) if values is None else values
        return sparse.csr_matrix((data.astype(np.float32), (self.user, self.item)), shape=self.shape)


@dataclass(frozen=True)
class Settings:
    """How the scores are made and ranked.

    Attributes:
        parts: Parts of the choices that are hidden one after the other.
        candidates: Items a customer, best by the mean of the scores, that are ranked.
        trees: Boosting rounds.
        learning_rate: Step of a round.
        leaves: Leaves of a tree.
        models: Rankings averaged, each with its own seed.
        threads: Threads.
        seed: Of parts and models.
    """

    parts: int = 10
    candidates: int = 120
    trees: int = 150
    learning_rate: float = 0.05
    leaves: int = 15
    models: int = 2
    threads: int = 2
    seed: int = 0


# Windows around a customer's choices, in days: what is chosen now is rather what was chosen by others now.
NEAR = (3.0, 30.0)
BASES = ("popularity", "item-kNN", "user-kNN", "implicit ALS", "EASE")


def base_scores(choices: Choices, seed: int = 0) -> dict[str, Matrix]:
    """Scores of all items for all customers by each method (users, items), the first of them those of `BASES`.

    EASE regularization grows with the data: lambda = 0.6 % of the choices, about what is best on rating data of any density.
    """
    bought = choices.matrix()
    usual = float(np.mean(choices.strength)) or 1.0
    liked = choices.matrix(0.5 + choices.strength / usual / 2)
    penalty = max(10.0, 0.006 * len(choices.user))
    count = np.asarray(bought.sum(axis=0)).ravel()
    slow = implicit_factors(bought, 24, regularization=30.0, confidence=10.0, sweeps=6, seed=seed)
    wide = implicit_factors(bought, 64, regularization=60.0, confidence=6.0, sweeps=6, seed=seed)
    users = item_neighbours(bought.T.tocsr(), 120, shrink=5.0).similarity
    return {
        "popularity": np.tile(count.astype(np.float32), (choices.shape[0], 1)),
        "item-kNN": item_neighbours(bought, 200).scores(bought),
        "user-kNN": np.asarray((users.T @ bought).todense(), np.float32),
        "implicit ALS": slow.scores(slice(None)),
        "EASE": ease(bought, penalty).scores(bought),
        "EASE strong": ease(bought, 3 * penalty).scores(bought),
        "EASE liked": ease(liked, penalty).scores(liked),
        "ALS wide": wide.scores(slice(None)),
        **_near(choices),
    }


def _near(choices: Choices) -> dict[str, Matrix]:
    """How often others chose an item close in time to a customer's own choices: mean over these of the item's rate then."""
    if np.ptp(choices.moment) <= 0:
        return {}
    out = {}
    first = float(choices.moment.min())
    for width in NEAR:
        slot = ((choices.moment - first) / width).astype(np.int64)
        slots = int(slot.max()) + 1
        by_item = np.zeros((slots, choices.shape[1]), np.float32)
        np.add.at(by_item, (slot, choices.item), 1.0)
        whole = by_item.sum(axis=1, keepdims=True)
        rate = by_item / np.maximum(whole, 1.0)
        weight = 1.0 / np.bincount(choices.user, minlength=choices.shape[0])[choices.user]
        mine = sparse.csr_matrix((weight, (choices.user, slot)), shape=(choices.shape[0], slots))
        out[f"near {width:.0f} days"] = np.asarray(mine @ rate, np.float32)
    return out


def _side_columns(choices: Choices) -> tuple[Matrix, Matrix]:
    """Columns of a customer (users, 2) and of an item (items, 4): how many, when, how well liked."""
    n_users, n_items = choices.shape
    mine, of_item = np.bincount(choices.user, minlength=n_users), np.bincount(choices.item, minlength=n_items)
    when = np.bincount(choices.user, choices.moment, minlength=n_users) / np.maximum(mine, 1)
    first = np.full(n_items, np.inf)
    np.minimum.at(first, choices.item, choices.moment)
    last = np.full(n_items, -np.inf)
    np.maximum.at(last, choices.item, choices.moment)
    liked = np.bincount(choices.item, choices.strength, minlength=n_items)
    usual = float(choices.strength.mean()) if len(choices.strength) else 0.0
    user = np.stack([np.log1p(mine), when], axis=1).astype(np.float32)
    item = np.stack([np.log1p(of_item), first, last, (liked + 5 * usual) / (of_item + 5)], axis=1).astype(np.float32)
    return user, item


@dataclass(frozen=True)
class Rows:
    """Candidates of all customers: user, item (n), columns (n, names), and the plain mean of the scores (n)."""

    user: Ints
    item: Ints
    x: Matrix
    mean: Floats


def rows_of(choices: Choices, settings: Settings, scores: dict[str, Matrix] | None = None) -> Rows:
    """The best candidates of every customer with their columns; nothing that the customer chose.

    Args:
        choices: What is known.
        settings: How many candidates.
        scores: `base_scores` of the choices, if they were computed before.
    """
    scores = scores or base_scores(choices, settings.seed)
    seen = choices.matrix().toarray() > 0
    standard = {name: _standard(score, seen) for name, score in scores.items()}
    mean = np.mean([standard[name] for name in standard if name != "popularity"], axis=0)
    mean[seen] = -np.inf
    count = min(settings.candidates, choices.shape[1])
    best = np.sort(np.argpartition(-mean, count - 1, axis=1)[:, :count], axis=1)
    user = np.repeat(np.arange(choices.shape[0]), count)
    item = best.ravel().astype(np.int64)
    keep = np.isfinite(mean[user, item])
    user, item = user[keep], item[keep]
    of_user, of_item = _side_columns(choices)
    columns = [standard[name][user, item] for name in standard]
    columns += [*of_user[user].T[:1], of_item[item, 0], of_item[item, 3]]
    # How long before the customer's choices the item was first chosen by anybody, and how long after it was last.
    columns += [of_user[user, 1] - of_item[item, 1], of_item[item, 2] - of_user[user, 1], mean[user, item]]
    return Rows(user, item, np.stack(columns, axis=1).astype(np.float32), mean[user, item].astype(float))


def _standard(score: Matrix, seen: NDArray[np.bool_]) -> Matrix:
    """Scores with mean 0 and spread 1 over what each customer has not chosen."""
    open_to = ~seen
    count = np.maximum(open_to.sum(axis=1, keepdims=True), 1)
    mean = (score * open_to).sum(axis=1, keepdims=True) / count
    spread = np.sqrt(((score - mean) ** 2 * open_to).sum(axis=1, keepdims=True) / count)
    return np.asarray((score - mean) / (spread + 1e-9), np.float32)


def parts_of(choices: Choices, parts: int, seed: int = 0) -> Ints:
    """Number of the part of each choice (n): each customer's choices are spread evenly over the parts."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(choices.user)), choices.user))
    begin = np.searchsorted(choices.user[order], np.arange(choices.shape[0]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - begin[choices.user[order]]
    return (place + rng.integers(0, parts, choices.shape[0])[choices.user]) % parts


@dataclass(frozen=True)
class HeldOut:
    """A part of the choices, hidden.

    Attributes:
        rows: Candidates as the rest gives them.
        hidden: The part.
        scores: Base scores by the rest.
        seen: What the rest holds (users, items).
    """

    rows: Rows
    hidden: Choices
    scores: dict[str, Matrix]
    seen: NDArray[np.bool_]

    @property
    def label(self) -> NDArray[np.float32]:
        """Which of the candidates were hidden choices (n)."""
        n_items = self.hidden.shape[1]
        keys = self.hidden.user * n_items + self.hidden.item
        return np.isin(self.rows.user * n_items + self.rows.item, keys).astype(np.float32)


def held_out(choices: Choices, settings: Settings) -> Iterator[HeldOut]:
    """Each part hidden once."""
    number = parts_of(choices, settings.parts, settings.seed)
    for part in range(settings.parts):
        rest = choices.where(number != part)
        scores = base_scores(rest, settings.seed)
        rows = rows_of(rest, settings, scores)
        yield HeldOut(rows, choices.where(number == part), scores, rest.matrix().toarray() > 0)


def fit(
    examples: Sequence[tuple[Rows, NDArray[np.float32]]], settings: Settings, users: NDArray[np.bool_] | None = None
) -> list[Any]:
    """LambdaRank models on held-out parts (candidates and labels), of the customers chosen."""
    lgb = lightgbm()
    xs, ys, groups = [], [], []
    for rows, labels in examples:
        keep = np.ones(len(labels), bool) if users is None else users[rows.user]
        user, label = rows.user[keep], labels[keep]
        position = np.unique(user, return_inverse=True)[1]
        useful = np.bincount(position, label)[position] > 0 if len(user) else np.zeros(0, bool)
        xs.append(rows.x[keep][useful])
        ys.append(label[useful])
        groups.append(np.unique(user[useful], return_counts=True)[1])
    x, y, group = np.concatenate(xs), np.concatenate(ys), np.concatenate(groups)
    models = []
    for k in range(settings.models):
        data = lgb.Dataset(x, y, group=group, params={"max_bin": 127, "verbosity": -1})
        parameters = {
            "objective": "lambdarank",
            "lambdarank_truncation_level": 20,
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": 100,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 10.0,
            "max_bin": 127,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": settings.threads,
            "verbosity": -1,
            "seed": settings.seed + k,
        }
        models.append(lgb.train(parameters, data, settings.trees))
    return models


def scores_of(models: list[Any], rows: Rows, threads: int = 2) -> Floats:
    """Mean score of the models (n)."""
    found = [model.predict(rows.x, raw_score=True, num_threads=threads) for model in models]
    return np.asarray(np.mean(found, axis=0))


def recommend(choices: Choices, settings: Settings | None = None, keep: int = 10) -> pl.DataFrame:
    """The best items that each customer has not chosen: user, item (positions), score, rank."""
    settings = settings or Settings()
    models = fit([(part.rows, part.label) for part in held_out(choices, settings)], settings)
    rows = rows_of(choices, settings)
    return top_lists(rows.user, rows.item, scores_of(models, rows, settings.threads), keep)
