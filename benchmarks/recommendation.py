"""Recommendations on real purchases: `python -m benchmarks.recommendation --data DIR --out DIR`.

DIR is a folder of The Complete Journey (`transactions*.parquet`, `products.parquet`), of ratings (`train.parquet`: user, item,
…), or one that holds such folders. Written: `recommend_all.parquet` and `recommend_new.parquet` (user, item, rank 1 to 10) for
the four weeks after the last one known; below OUT/<folder> too where DIR holds several.

The table judges all methods on the last four known weeks (for ratings: on a random quarter of what is known), each trained
before them only. `--scale` measures time and memory on invented purchases of 100,000 customers and 20,000 products.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from npq_assets.recommendation.evaluation import ranking_scores, top_lists
from npq_assets.recommendation.factors import Matrix, ease, implicit_factors, item_neighbours
from npq_assets.recommendation.features import PAIR, Known, Settings, know
from npq_assets.recommendation.purchases import Floats, Ints, Purchases, purchases_of
from npq_assets.recommendation.ranking import Training, examples, rank, train

HORIZON = 28
K = 10


def read_complete_journey(folder: Path) -> Purchases:
    """The transactions as purchases; day = 7 (week - 1) + weekday, so that weeks are those of the data set."""
    files = sorted(folder.glob("transactions*.parquet"))
    weekday = pl.col("transaction_timestamp").dt.offset_by("-5h").dt.weekday() - 1
    lines = pl.concat([pl.read_parquet(file) for file in files], how="vertical_relaxed").select(
        user="household_id",
        item="product_id",
        day=(pl.col("week").cast(pl.Int64) - 1) * 7 + weekday,
        basket="basket_id",
        quantity=pl.col("quantity").cast(pl.Float64),
        amount="sales_value",
        discount=pl.col("retail_disc") + pl.col("coupon_disc"),
        site="store_id",
    )
    products = pl.read_parquet(folder / "products.parquet").select(
        item="product_id",
        department="department",
        brand="brand",
        manufacturer="manufacturer_id",
        category="product_category",
        type="product_type",
    )
    return purchases_of(lines, products)


def known_weeks(folder: Path) -> int:
    """The last week in the transactions."""
    return max(
        int(pl.scan_parquet(f).select(pl.col("week").max()).collect().item()) for f in folder.glob("trans*.parquet")
    )


def mailer_share(folder: Path, purchases: Purchases) -> dict[int, dict[str, Floats]]:
    """By week: share of stores that showed a product in the mailer or on a display, from `promotions*.parquet`."""
    files = sorted(folder.glob("promotions*.parquet"))
    if not files:
        return {}
    n = len(purchases.items)
    out: dict[int, dict[str, Floats]] = {}
    for file in files:
        weekly = (
            pl.scan_parquet(file)
            .group_by("week", "product_id")
            .agg(
                (pl.col("mailer_location") != "0").sum().alias("mailer"),
                (pl.col("display_location") != "0").sum().alias("display"),
            )
            .collect()
        )
        for (week,), rows in weekly.partition_by("week", as_dict=True).items():
            place = np.searchsorted(purchases.items, rows["product_id"].to_numpy())
            ok = (place < n) & (purchases.items[np.minimum(place, n - 1)] == rows["product_id"].to_numpy())
            values = {name: np.zeros(n) for name in ("mailer", "display")}
            for name, column in values.items():
                column[place[ok]] = rows[name].to_numpy()[ok]
            out[int(week)] = values
    return out


def promoted_before(weeks: dict[int, dict[str, Floats]], day: int, n: int) -> dict[str, Floats]:
    """Promotion of the last week before `day`, and of the four weeks before it."""
    last = day // 7
    zero = np.zeros(n)
    empty = {"mailer": zero, "display": zero}
    return {
        "mailer_last": weeks.get(last, empty)["mailer"],
        "display_last": weeks.get(last, empty)["display"],
        "mailer_month": np.sum([weeks.get(last - k, empty)["mailer"] for k in range(4)], axis=0),
    }


def learned_lists(
    purchases: Purchases, day: int, kinds: str, known: dict[int, Known], training: Training
) -> pl.DataFrame:
    """Our lists as of `day`: trained on the horizons before it."""
    data = examples(purchases, day, kinds, training, known_at=lambda cutoff: known[cutoff])
    return rank(train(data, training), known[day], np.arange(purchases.shape[0]), kinds, K)


def rivals(known: Known, purchases: Purchases) -> dict[str, pl.DataFrame]:
    """Lists of the methods that any shop could use, for `all` and `new`."""
    n_users, n = purchases.shape
    users = np.arange(n_users)
    found: dict[str, pl.DataFrame] = {}
    popularity = np.argsort(-known.popularity, kind="stable")

    def ranked(kind: str, score: Matrix, rows: Ints) -> pl.DataFrame:
        if kind == "new":
            bought = known.bought[rows]
            score = score.copy()
            score[np.repeat(np.arange(len(rows)), np.diff(bought.indptr)), bought.indices] = -np.inf
        best = np.argpartition(-score, K, axis=1)[:, :K]
        user = np.repeat(rows, K)
        return top_lists(user, best.ravel(), np.take_along_axis(score, best, 1).ravel().astype(float), K)

    parts: dict[str, list[pl.DataFrame]] = {}
    for start in range(0, n_users, 400):
        rows = users[start : start + 400]
        scores = {
            "popularity": np.tile(known.popularity.astype(np.float32), (len(rows), 1)),
            "item-kNN": known.neighbours.scores(known.bought[rows]),
        }
        if known.factors is not None:
            scores["implicit ALS"] = known.factors.scores(rows)
        for name, score in scores.items():
            for kind in ("all", "new"):
                parts.setdefault(f"{kind}:{name}", []).append(ranked(kind, score, rows))
    found = {name: pl.concat(lists) for name, lists in parts.items()}
    for half_life in (28, 91):
        score = known.pair_values[:, PAIR.index(f"baskets_h{half_life}")].astype(float)
        again = top_lists(known.pair_keys // n, known.pair_keys % n, score, K)
        fill = pl.DataFrame({"user": np.repeat(users, K), "item": np.tile(popularity[:K], n_users)})
        fill = fill.with_columns(pl.lit(-1.0).alias("score"), (pl.int_range(pl.len()) % K + 100).alias("rank"))
        both = pl.concat([again.select("user", "item", "score", "rank"), fill.cast(again.schema)])
        both = both.sort("user", "rank").unique(["user", "item"], keep="first", maintain_order=True)
        both = both.with_columns(pl.int_range(1, pl.len() + 1).over("user").alias("rank")).filter(pl.col("rank") <= K)
        found[f"all:decayed buy-again, half-life {half_life} days"] = both
    return found


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Scores of the methods, best first."""
    print(f"\n{title}\n{'method':<42}{'nDCG@10':>9}{'recall':>9}{'MAP':>9}{'hit':>9}")
    for name, score in sorted(rows.items(), key=lambda row: row[1]["ndcg"]):
        print(f"{name:<42}{score['ndcg']:>9.4f}{score['recall']:>9.4f}{score['map']:>9.4f}{score['hit_rate']:>9.3f}")


def complete_journey(folder: Path, out: Path, threads: int, judge: bool) -> None:
    """Judges on the last four known weeks, then writes lists for the four weeks that follow."""
    purchases = read_complete_journey(folder)
    end = known_weeks(folder) * 7
    n = len(purchases.items)
    weeks = mailer_share(folder, purchases)
    training = Training(horizon=HORIZON, cutoffs=3, trees=200, threads=threads)
    known: dict[int, Known] = {}
    steps = training.cutoffs + (1 if judge else 0)
    for day in range(end, end - (steps + 1) * HORIZON, -HORIZON):
        if day > HORIZON:
            known[day] = know(purchases, day, Settings(), promoted_before(weeks, day, n))
    if judge:
        day = end - HORIZON
        truth = purchases.between(day, end).pairs()
        actual = pl.DataFrame({"user": truth // n, "item": truth % n})
        actual_new = actual.filter(~pl.Series(np.isin(truth, known[day].pair_keys)))
        lists = rivals(known[day], purchases)
        for kind, kinds, relevant in (("all", "both", actual), ("new", "new", actual_new)):
            rows = {
                name.partition(":")[2]: ranking_scores(found, relevant)
                for name, found in lists.items()
                if name.startswith(kind)
            }
            rows["npq (LambdaRank)"] = ranking_scores(learned_lists(purchases, day, kinds, known, training), relevant)
            print_table(f"Complete Journey, weeks {day // 7 + 1}-{end // 7}, {kind} purchases", rows)
    for name, kinds in (("recommend_all", "both"), ("recommend_new", "new")):
        best = learned_lists(purchases, end, kinds, known, training)
        write_lists(best, purchases.users, purchases.items, out / f"{name}.parquet")


def write_lists(lists: pl.DataFrame, users: np.ndarray, items: np.ndarray, place: Path) -> None:
    """user, item, rank with the data's own ids."""
    place.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {"user": users[lists["user"].to_numpy()], "item": items[lists["item"].to_numpy()], "rank": lists["rank"]}
    ).write_parquet(place)
    print(f"{place}: {lists.height} rows")


# --- ratings -------------------------------------------------------------------------------------------------------------

REGULARIZATIONS = (100.0, 200.0, 350.0, 500.0, 800.0)


def rating_scores(bought: sparse.csr_matrix, regularization: float) -> dict[str, Matrix]:
    """Dense scores of all methods for all customers, seen products excluded."""
    seen = np.asarray(bought.todense()) > 0
    factors = implicit_factors(bought, 32, regularization=30.0, confidence=10.0, sweeps=8)
    scores = {
        "popularity": np.tile(np.asarray(bought.sum(axis=0)).ravel().astype(np.float32), (bought.shape[0], 1)),
        "item-kNN": item_neighbours(bought, 200).scores(bought),
        "implicit ALS": factors.scores(slice(None)),
        "EASE": ease(bought, regularization).scores(bought),
    }
    standard = {name: (s - s.mean(1, keepdims=True)) / (s.std(1, keepdims=True) + 1e-9) for name, s in scores.items()}
    for weight in (0.15, 0.3, 0.45):
        mixed = (1 - weight) * standard["EASE"] + weight * standard["implicit ALS"]
        scores[f"EASE + {weight:.2f} ALS"] = mixed
        scores[f"EASE + {weight:.2f} ALS + 0.15 kNN"] = mixed + 0.15 * standard["item-kNN"]
    return {name: np.where(seen, -np.inf, s) for name, s in scores.items()}


def dense_lists(score: Matrix) -> pl.DataFrame:
    """Top lists of a dense matrix."""
    best = np.argpartition(-score, K, axis=1)[:, :K]
    user = np.repeat(np.arange(len(score)), K)
    return top_lists(user, best.ravel(), np.take_along_axis(score, best, 1).ravel().astype(float), K)


def ratings(folder: Path, out: Path) -> None:
    """Chooses among all methods on two random quarters of the ratings known, then recommends with the best."""
    rows = pl.read_parquet(folder / "train.parquet").select("user", "item").unique().sort("user", "item")
    users, items = rows["user"].unique().sort().to_numpy(), rows["item"].unique().sort().to_numpy()
    u, i = np.searchsorted(users, rows["user"].to_numpy()), np.searchsorted(items, rows["item"].to_numpy())

    def matrix(mask: np.ndarray) -> sparse.csr_matrix:
        ones = np.ones(int(mask.sum()), np.float32)
        return sparse.csr_matrix((ones, (u[mask], i[mask])), shape=(len(users), len(items)))

    table: dict[str, list[dict[str, float]]] = {}
    for split in range(2):
        draw = np.random.default_rng(split).random(len(u))
        share = pl.DataFrame({"user": u, "draw": draw}).select(
            pl.col("draw").rank().over("user") / pl.len().over("user")
        )
        held_out = share["draw"].to_numpy() > 0.75
        actual = pl.DataFrame({"user": u[held_out], "item": i[held_out]})
        for regularization in REGULARIZATIONS:
            for name, score in rating_scores(matrix(~held_out), regularization).items():
                label = f"{name} (lambda {regularization:.0f})" if "EASE" in name else name
                if label in table and len(table[label]) > split:
                    continue
                table.setdefault(label, []).append(ranking_scores(dense_lists(score), actual))
    mean = {name: {k: float(np.mean([s[k] for s in found])) for k in found[0]} for name, found in table.items()}
    shown = dict(sorted(mean.items(), key=lambda row: -row[1]["ndcg"])[:8])
    print_table("Ratings, a random quarter of what is known, mean of two", {**shown, **{
        name: mean[name] for name in ("popularity", "item-kNN", "implicit ALS")}})  # fmt: skip
    best = max(mean, key=lambda name: mean[name]["ndcg"])
    # More ratings bear the same penalty more lightly: lambda grows with them.
    regularization = float(best.partition("lambda ")[2].rstrip(")") or 200.0) / 0.75
    lists = dense_lists(rating_scores(matrix(np.ones(len(u), bool)), regularization)[best.partition(" (lambda")[0]])
    print(f"chosen: {best}")
    for name in ("recommend_all", "recommend_new"):
        write_lists(lists, users, items, out / f"{name}.parquet")


# --- scale ---------------------------------------------------------------------------------------------------------------


def invented(customers: int, products: int, lines: int, days: int = 180, seed: int = 0) -> Purchases:
    """Purchases of customers with tastes for families, some products popular, some bought again."""
    rng = np.random.default_rng(seed)
    families = 200
    family = rng.integers(0, families, products)
    popular = rng.zipf(1.3, products).clip(max=2000).astype(float)
    by_family = [np.flatnonzero(family == f) for f in range(families)]
    user = rng.integers(0, customers, lines)
    taste = rng.integers(0, families, (customers, 8))
    chosen = taste[user, rng.integers(0, 8, lines)]
    item = np.empty(lines, np.int64)
    for f in range(families):
        mine = np.flatnonzero(chosen == f)
        weight = popular[by_family[f]]
        item[mine] = rng.choice(by_family[f], len(mine), p=weight / weight.sum())
    frame = pl.DataFrame(
        {"user": user, "item": item, "day": rng.integers(0, days, lines), "amount": rng.gamma(2.0, 2.0, lines)}
    )
    return purchases_of(frame, pl.DataFrame({"item": np.arange(products), "family": family}))


def scale(customers: int, products: int, threads: int) -> None:
    """Time and memory from purchases to ten recommendations for everybody."""
    purchases = invented(customers, products, customers * 50)
    started = time.monotonic()
    settings = Settings(factors=32, sweeps=3, neighbours=50, per_source=20, again=40)
    training = Training(cutoffs=1, trees=80, models=1, pointwise=False, max_users=5000, threads=threads)
    day = purchases.last_day + 1
    data = examples(purchases, day, "both", training, settings)
    model = train(data, training)
    del data
    lists = rank(model, know(purchases, day, settings), np.arange(purchases.shape[0]), "both", K)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{customers:,} customers x {products:,} products, {len(purchases.user):,} lines: {lists.height:,} "
        f"recommendations in {seconds:.0f} s, peak memory {peak:.1f} GB"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Folder of a data set, or of several.")
    parser.add_argument("--out", type=Path, default=Path("."), help="Where the lists go.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-judging", action="store_true", help="Only write the lists.")
    parser.add_argument("--scale", action="store_true", help="Measure 100,000 customers x 20,000 products instead.")
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--products", type=int, default=20_000)
    options = parser.parse_args()
    if options.scale:
        scale(options.customers, options.products, options.threads)
        return
    if options.data is None or not options.data.is_dir():
        raise SystemExit(f"--data {options.data}: no such folder; give a folder of the Complete Journey or of ratings")
    folders = [options.data, *sorted(f for f in options.data.iterdir() if f.is_dir())]
    found = 0
    for folder in folders:
        alone = folder == options.data
        out = options.out if alone else options.out / folder.name
        if any(folder.glob("transactions*.parquet")) and (folder / "products.parquet").exists():
            complete_journey(folder, out, options.threads, not options.no_judging)
        elif (folder / "train.parquet").exists():
            ratings(folder, out)
        else:
            continue
        found += 1
        if alone:
            break
    if not found:
        raise SystemExit(f"{options.data}: no transactions*.parquet with products.parquet and no train.parquet")


if __name__ == "__main__":
    main()
