"""How good ranked lists were: nDCG, recall, precision and mean average precision at k, customer by customer.

Which customers and products count is decided by who calls.
"""

from __future__ import annotations

import numpy as np
import polars as pl


def ranking_scores(lists: pl.DataFrame, actual: pl.DataFrame, k: int = 10) -> dict[str, float]:
    """Scores of lists against what was bought; binary relevance.

    nDCG@k = mean over customers of sum_hits 1/log2(rank + 1) / sum_{j <= min(n, k)} 1/log2(j + 1) (Järvelin and Kekäläinen
    2002). A customer without a list scores 0; customers who bought nothing do not count.

    Args:
        lists: user, item, rank (1 is the first).
        actual: user, item; distinct pairs count once.
        k: Length of the list that counts.

    Returns:
        users, ndcg, recall, precision, map, hit_rate.
    """
    truth = actual.select("user", "item").unique()
    wanted = truth.group_by("user").agg(pl.len().alias("n"))
    hits = lists.filter(pl.col("rank").is_between(1, k)).join(truth, on=["user", "item"], how="inner")
    hits = hits.sort("user", "rank").with_columns(pl.int_range(1, pl.len() + 1).over("user").alias("so_far"))
    got = hits.group_by("user").agg(
        (1.0 / (pl.col("rank").cast(pl.Float64) + 1.0).log(2.0)).sum().alias("dcg"),
        pl.len().alias("hits"),
        (pl.col("so_far") / pl.col("rank")).sum().alias("precision_sum"),
    )
    best = np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))
    rows = wanted.join(got, on="user", how="left").sort("user").fill_null(0)
    if rows.is_empty():
        return {"users": 0.0, "ndcg": 0.0, "recall": 0.0, "precision": 0.0, "map": 0.0, "hit_rate": 0.0}
    n = rows["n"].to_numpy()
    return {
        "users": float(rows.height),
        "ndcg": float((rows["dcg"].to_numpy() / best[np.minimum(n, k) - 1]).mean()),
        "recall": float((rows["hits"].to_numpy() / n).mean()),
        "precision": float((rows["hits"].to_numpy() / k).mean()),
        "map": float((rows["precision_sum"].to_numpy() / n).mean()),
        "hit_rate": float((rows["hits"].to_numpy() > 0).mean()),
    }


def group_ndcg(score: np.ndarray, label: np.ndarray, group: np.ndarray, k: int = 10) -> np.ndarray:
    """nDCG@k of each group of candidates, ideal over the group's own hits; ties go to the earlier candidate.

    Args:
        score: Scores of the candidates (n), group after group.
        label: Whether each was right, 0 or 1 (n).
        group: Number of candidates of each group (g), each > 0.
        k: Length that counts.
    """
    owner = np.repeat(np.arange(len(group)), group)
    order = np.lexsort((-score, owner))
    place = np.arange(len(score)) - np.repeat(np.cumsum(group) - group, group)
    gain = np.where(place < k, label[order] / np.log2(place + 2.0), 0.0)
    hits = np.bincount(owner, label, minlength=len(group)).astype(np.int64)
    best = np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))
    dcg = np.bincount(owner, gain, minlength=len(group))
    return np.asarray(np.where(hits > 0, dcg / best[np.clip(hits, 1, k) - 1], 0.0))


def top_lists(user: np.ndarray, item: np.ndarray, score: np.ndarray, k: int = 10) -> pl.DataFrame:
    """The k best-scored items of each customer: user, item, score, rank; ties go to the earlier item."""
    frame = pl.DataFrame({"user": user, "item": item, "score": score})
    ranked = frame.sort(["user", "score", "item"], descending=[False, True, False])
    ranked = ranked.with_columns(pl.int_range(1, pl.len() + 1).over("user").alias("rank"))
    return ranked.filter(pl.col("rank") <= k)
