"""Segments of customers: clusters whose number is chosen by stability and whose names are sentences.

Method: k-means on standardized logs of recency, frequency and money; the number of clusters is the largest whose
assignments agree between random halves (adjusted Rand index, Hubert and Arabie 1985; stability selection after Ben-Hur,
Elisseeff and Guyon 2002) and whose clusters stand nearly as far apart as the best number's (silhouette, Rousseeuw 1987).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NOT_YET = "Has not bought anything yet"
MIN_CUSTOMERS = 40


@dataclass(frozen=True)
class Segments:
    """Segments of customers.

    Attributes:
        segment: Name of each customer's segment (c).
        names: Names of the segments, biggest spenders first.
        stability: Mean adjusted Rand index between random halves, by number of clusters tried.
    """

    segment: NDArray[np.str_]
    names: tuple[str, ...]
    stability: dict[int, float]


def segment_customers(
    recency: Floats, frequency: Floats, spend: Floats, most: int = 6, stable: float = 0.75, seed: int = 0
) -> Segments:
    """Clusters customers by how recently, how often and for how much they buy.

    Args:
        recency: Days since the last purchase (c); NaN for customers who never bought.
        frequency: Baskets lately (c).
        spend: Money spent lately (c).
        most: Largest number of clusters tried.
        stable: Agreement that a number of clusters must reach; if none does, the most stable one is taken.
        seed: Of k-means and of the halves.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    bought = np.isfinite(recency)
    names = np.full(len(recency), NOT_YET, dtype=object)
    if bought.sum() < MIN_CUSTOMERS:
        names[bought] = "Buys; there are too few customers to tell segments apart"
        return Segments(names.astype(str), tuple(sorted(set(names.tolist()))), {})
    x = np.stack([np.log1p(recency[bought]), np.log1p(frequency[bought]), np.log1p(spend[bought])], axis=1)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    rng = np.random.default_rng(seed)
    stability: dict[int, float] = {}
    fit_on = x if len(x) <= 20_000 else x[rng.choice(len(x), 20_000, replace=False)]
    for k in range(2, most + 1):
        agreements = []
        for _ in range(4):
            order = rng.permutation(len(fit_on))
            halves = order[: len(order) // 2], order[len(order) // 2 :]
            models = [KMeans(k, n_init=3, random_state=seed).fit(fit_on[half]) for half in halves]
            agreements.append(adjusted_rand_score(*[model.predict(fit_on) for model in models]))
        stability[k] = float(np.mean(agreements))
    judged = fit_on if len(fit_on) <= 2_000 else fit_on[rng.choice(len(fit_on), 2_000, replace=False)]
    apart = {
        k: float(silhouette_score(judged, KMeans(k, n_init=3, random_state=seed).fit(fit_on).predict(judged)))
        for k in stability
    }
    clear = 0.85 * max(apart.values())
    good = [k for k, agreement in stability.items() if agreement >= stable and apart[k] >= clear]
    count = max(good) if good else max(stability, key=lambda k: stability[k])
    model = KMeans(count, n_init=10, random_state=seed).fit(fit_on)
    label = model.predict(x)
    described = _names(recency[bought], frequency[bought], spend[bought], label, count)
    names[bought] = np.array(described, dtype=object)[label]
    order_by_spend = sorted(range(count), key=lambda k: -float(spend[bought][label == k].mean()))
    ordered = [described[k] for k in order_by_spend]
    if (~bought).any():
        ordered.append(NOT_YET)
    return Segments(names.astype(str), tuple(ordered), stability)


def _names(recency: Floats, frequency: Floats, spend: Floats, label: NDArray[np.int64], count: int) -> list[str]:
    """A sentence for each cluster, from its medians against everybody's; sentences differ."""
    found: list[str] = []
    overall_recency, overall_frequency = np.median(recency), np.median(frequency)
    share = spend / max(float(spend.sum()), 1e-9)
    for k in range(count):
        mine = label == k
        r, f = float(np.median(recency[mine])), float(np.median(frequency[mine]))
        if r > 3 * overall_recency and r > 45:
            when = "Has stayed away lately"
        elif f > 1.5 * overall_frequency:
            when = "Comes often"
        elif f < 0.67 * overall_frequency:
            when = "Comes seldom"
        else:
            when = "Comes now and then"
        rate = float(share[mine].sum()) / max(float(mine.mean()), 1e-9)
        money = "spends much" if rate > 1.5 else "spends little" if rate < 0.6 else "spends as most do"
        name = f"{when} and {money}"
        if name in found:
            name = f"{name}, last seen about {r:.0f} days ago"
        while name in found:
            name += f" ({f:.0f} baskets)"
        found.append(name)
    return found
