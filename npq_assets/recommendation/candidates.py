"""Which products are considered for a customer at all: bought before, co-bought, neighbours, factors, popular.

Ranking them does not belong here. Customers are handled in blocks, and neighbours stay sparse, so that memory does not grow
with the number of customers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from npq_assets.recommendation.features import PAIR, Known, Matrix, features
from npq_assets.recommendation.purchases import Floats, Ints


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
    size = block or max(50, min(1000, 20_000_000 // max(1, n_items)))
    for start in range(0, len(users), size):
        yield _block(known, users[start : start + size], kinds, sellable)


def _block(known: Known, users: Ints, kinds: str, sellable: NDArray[np.bool_] | None) -> Candidates:
    n_items = known.purchases.shape[1]
    bought = known.bought[users]
    near = sparse.csr_matrix(bought @ known.neighbours.similarity)
    near.sort_indices()
    parts: list[Ints] = []
    if kinds in ("again", "both"):
        parts.append(_again(known, users, sellable))
    if kinds in ("new", "both"):
        parts += _new(known, users, bought, near, sellable)
    local = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
    row, item = local // n_items, local % n_items
    user = users[row]
    knn = np.asarray(near[row, item], np.float32).ravel() if len(row) else np.zeros(0, np.float32)
    als = np.zeros(len(row), np.float32)
    if known.factors is not None:
        als = np.einsum("nf,nf->n", known.factors.user[user], known.factors.item[item])
    x = features(known, user, item, knn, als)
    return Candidates(user, item, x[:, 2] > 0.5, x)


def _new(
    known: Known, users: Ints, bought: sparse.csr_matrix, near: sparse.csr_matrix, sellable: NDArray[np.bool_] | None
) -> list[Ints]:
    """The best products of each source that the customer never bought and that are sold lately at the customer's site."""
    count = min(known.settings.per_source, known.purchases.shape[1])
    found: list[Ints] = []
    site = known.main_site[users]
    for one in np.unique(site):
        rows = np.flatnonzero(site == one)
        open_here = known.recent if sellable is None else known.recent & sellable[one]
        found.append(_best_near(rows, bought, near, open_here, count))
        for popular in (known.popularity, _site_popularity(known, int(one))):
            if popular is not None:
                found.append(_best_popular(rows, bought, popular, open_here, count))
        if known.factors is not None:
            found.append(_best_factors(known, users, rows, bought, open_here, count))
    return found


def _site_popularity(known: Known, site: int) -> Floats | None:
    """Popularity at a site (products); None if there is only one site."""
    keys, values = known.site_sums.keys, known.site_sums.values
    n_items = known.purchases.shape[1]
    if len(keys) == 0 or keys[-1] // n_items == 0:
        return None
    low, high = np.searchsorted(keys, [site * n_items, (site + 1) * n_items])
    popularity = np.zeros(n_items)
    popularity[keys[low:high] % n_items] = values[low:high, 0]
    return popularity


def _best_near(
    rows: Ints, bought: sparse.csr_matrix, near: sparse.csr_matrix, open_here: NDArray[np.bool_], count: int
) -> Ints:
    """Keys row * products + product of the nearest open products of each row."""
    n_items = bought.shape[1]
    still_open = open_here.copy()
    found = [np.zeros(0, np.int64)]
    for row in rows.tolist():
        own = bought.indices[bought.indptr[row] : bought.indptr[row + 1]]
        span = slice(near.indptr[row], near.indptr[row + 1])
        still_open[own] = False
        item, score = near.indices[span], near.data[span]
        keep = still_open[item] & (score > 0)
        still_open[own] = open_here[own]
        item, score = item[keep], score[keep]
        if len(item) > count:
            item = item[np.argpartition(-score, count - 1)[:count]]
        found.append(row * n_items + item.astype(np.int64))
    return np.concatenate(found)


def _best_popular(
    rows: Ints, bought: sparse.csr_matrix, popularity: Floats, open_here: NDArray[np.bool_], count: int
) -> Ints:
    """The same for a popularity that all rows share: nobody needs more of its first products than `count` and what they own."""
    n_items = bought.shape[1]
    useful = np.flatnonzero(open_here & (popularity > 0))
    most = count + int(np.diff(bought.indptr)[rows].max(initial=0))
    first = useful[np.argsort(-popularity[useful], kind="stable")[:most]]
    place = np.full(n_items, -1, np.int64)
    place[first] = np.arange(len(first))
    own = np.zeros((len(rows), len(first)), bool)
    chosen = bought[rows]
    at = place[chosen.indices]
    owner = np.repeat(np.arange(len(rows)), np.diff(chosen.indptr))
    own[owner[at >= 0], at[at >= 0]] = True
    keep = ~own & (np.cumsum(~own, axis=1) <= count)
    row, position = np.nonzero(keep)
    return rows[row] * n_items + first[position]


def _best_factors(
    known: Known, users: Ints, rows: Ints, bought: sparse.csr_matrix, open_here: NDArray[np.bool_], count: int
) -> Ints:
    """The same for implicit factors: dense over the open products, for the rows of a block only."""
    assert known.factors is not None
    n_items = bought.shape[1]
    useful = np.flatnonzero(open_here)
    if not len(useful):
        return np.zeros(0, np.int64)
    score = known.factors.user[users[rows]] @ known.factors.item[useful].T
    place = np.full(n_items, -1, np.int64)
    place[useful] = np.arange(len(useful))
    chosen = bought[rows]
    at = place[chosen.indices]
    owner = np.repeat(np.arange(len(rows)), np.diff(chosen.indptr))
    score[owner[at >= 0], at[at >= 0]] = -np.inf
    count = min(count, len(useful))
    best = np.argpartition(-score, count - 1, axis=1)[:, :count]
    row = np.repeat(np.arange(len(rows)), count)
    good = score[row, best.ravel()] > 0
    return rows[row[good]] * n_items + useful[best.ravel()[good]]


def _again(known: Known, users: Ints, sellable: NDArray[np.bool_] | None) -> Ints:
    n_items = known.purchases.shape[1]
    low = np.searchsorted(known.pair_keys, users * n_items)
    high = np.searchsorted(known.pair_keys, (users + 1) * n_items)
    count = high - low
    row = np.repeat(np.arange(len(users)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    item = known.pair_keys[place] % n_items
    score = known.pair_values[place, PAIR.index("baskets_h91")]
    if sellable is not None:
        keep = sellable[known.main_site[users][row], item]
        row, item, score = row[keep], item[keep], score[keep]
    order = np.lexsort((item, -score, row))
    row, item = row[order], item[order]
    begin = np.searchsorted(row, np.arange(len(users)))
    rank = np.arange(len(row)) - begin[row]
    chosen = rank < known.settings.again
    return row[chosen] * n_items + item[chosen]
