"""Which products are considered for a customer at all: bought before, co-bought, neighbours, factors, popular.

Ranking them does not belong here. Customers are handled in blocks, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npq_assets.recommendation.features import PAIR, Known, Matrix, features
from npq_assets.recommendation.purchases import Ints


@dataclass(frozen=True)
class Candidates:
    """Pairs considered, customer by customer in order.

    Attributes:
        user: Positions of customers (n), ascending.
        item: Positions of products (n).
        new: Whether the customer never bought the product (n).
        x: Features (n, columns).
    """

    user: Ints
    item: Ints
    new: NDArray[np.bool_]
    x: Matrix


def candidates(
    known: Known,
    users: Ints,
    kinds: str = "both",
    sellable: NDArray[np.bool_] | None = None,
    block: int | None = None,
) -> Iterator[Candidates]:
    """Candidates of the customers with their features, a block of customers at a time.

    Args:
        known: What is known as of the day.
        users: Positions of customers, ascending.
        kinds: `again` (bought before), `new` (never bought) or `both`.
        sellable: What each site can sell this week, (sites, products); None for everything. Applied at the customer's
            main site.
        block: Customers at a time; chosen by the number of products if None.
    """
    n_items = known.purchases.shape[1]
    size = block or max(50, min(2000, 40_000_000 // max(1, n_items)))
    for start in range(0, len(users), size):
        yield _block(known, users[start : start + size], kinds, sellable)


def _block(known: Known, users: Ints, kinds: str, sellable: NDArray[np.bool_] | None) -> Candidates:
    n_items = known.purchases.shape[1]
    bought = known.bought[users]
    knn = known.neighbours.scores(bought)
    als = known.factors.scores(users) if known.factors is not None else np.zeros_like(knn)
    allowed = np.ones((len(users), n_items), bool) if sellable is None else sellable[known.main_site[users]]
    parts: list[Ints] = []
    if kinds in ("again", "both"):
        parts.append(_again(known, users, allowed))
    if kinds in ("new", "both"):
        open_to = allowed & known.recent[None, :]
        rows = np.repeat(np.arange(len(users)), np.diff(bought.indptr))
        open_to[rows, bought.indices] = False
        count = min(known.settings.per_source, n_items)
        popular = np.tile(known.popularity.astype(np.float32), (len(users), 1))
        sources = [knn, popular] + ([als] if known.factors is not None else [])
        site = _site_popularity(known, users)
        if site is not None:
            sources.append(site)
        parts += [_best(source, open_to, count) for source in sources]
    local = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
    row, item = local // n_items, local % n_items
    user = users[row]
    x = features(known, user, item, knn[row, item], als[row, item])
    return Candidates(user, item, x[:, 2] > 0.5, x)


def _site_popularity(known: Known, users: Ints) -> Matrix | None:
    """Popularity at the customers' main sites; None if there is only one site."""
    keys, values = known.site_sums.keys, known.site_sums.values
    n_items = known.purchases.shape[1]
    sites, inverse = np.unique(known.main_site[users], return_inverse=True)
    if len(keys) == 0 or keys[-1] // n_items == 0:
        return None
    table = np.zeros((len(sites), n_items), np.float32)
    for k, site in enumerate(sites):
        low, high = np.searchsorted(keys, [site * n_items, (site + 1) * n_items])
        table[k, keys[low:high] % n_items] = values[low:high, 0]
    return table[inverse]


def _again(known: Known, users: Ints, allowed: NDArray[np.bool_]) -> Ints:
    n_items = known.purchases.shape[1]
    low = np.searchsorted(known.pair_keys, users * n_items)
    high = np.searchsorted(known.pair_keys, (users + 1) * n_items)
    count = high - low
    row = np.repeat(np.arange(len(users)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    item = known.pair_keys[place] % n_items
    score = known.pair_values[place, PAIR.index("baskets_h91")]
    keep = allowed[row, item]
    row, item, score = row[keep], item[keep], score[keep]
    order = np.lexsort((item, -score, row))
    row, item = row[order], item[order]
    begin = np.searchsorted(row, np.arange(len(users)))
    rank = np.arange(len(row)) - begin[row]
    chosen = rank < known.settings.again
    return row[chosen] * n_items + item[chosen]


def _best(scores: Matrix, open_to: NDArray[np.bool_], count: int) -> Ints:
    """Keys row * products + product of the best open products of each row with a positive score."""
    masked = np.where(open_to, scores, -np.inf)
    best = np.argpartition(-masked, count - 1, axis=1)[:, :count]
    row = np.repeat(np.arange(len(scores)), count)
    item = best.ravel()
    value = masked[row, item]
    good = np.isfinite(value) & (value > 0)
    return row[good] * scores.shape[1] + item[good]
