"""Recommendations on real purchases: `python -m benchmarks.recommendation --data DIR --out DIR`.

DIR is a folder of The Complete Journey (`transactions*.parquet`, `products.parquet`), of ratings (`train.parquet`: user, item,
…), or one that holds such folders. Written: `recommend_all.parquet` and `recommend_new.parquet` (user, item, rank 1 to 10) for
the four weeks after the last one known; below OUT/<folder> too where DIR holds several.

The table judges all methods on the last four known weeks, each trained before them only (for ratings: on parts of the known
ones, hidden in turn). Time and memory for many customers: `benchmarks.recommendation_scale`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.recommendation import stacking
from npq_assets.recommendation.evaluation import ranking_scores, top_lists
from npq_assets.recommendation.factors import Matrix
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

# Share of all ratings that is kept from us, per user: what is known is three quarters.
KEPT_AWAY = 0.25


def read_ratings(folder: Path) -> tuple[stacking.Choices, np.ndarray, np.ndarray]:
    """The ratings as choices, with the ids of users and items; time and rating where the file has them."""
    rows = pl.read_parquet(folder / "train.parquet").unique(["user", "item"], keep="last", maintain_order=True)
    rows = rows.sort("user", "item")
    users, items = rows["user"].unique().sort().to_numpy(), rows["item"].unique().sort().to_numpy()
    moment = rows["ts"].cast(pl.Float64).to_numpy() / 86_400.0 if "ts" in rows.columns else np.zeros(rows.height)
    strength = rows["rating"].cast(pl.Float64).to_numpy() if "rating" in rows.columns else np.ones(rows.height)
    choices = stacking.Choices(
        np.searchsorted(users, rows["user"].to_numpy()).astype(np.int64),
        np.searchsorted(items, rows["item"].to_numpy()).astype(np.int64),
        moment,
        strength,
        (len(users), len(items)),
    )
    return choices, users, items


def final_like(found: list[tuple[pl.DataFrame, stacking.Choices]], choices: stacking.Choices) -> dict[str, float]:
    """nDCG@10 as it would be on the ratings kept away, from parts of the known ones, each hidden once.

    Kept-away ratings count as misses here, so that a hit in a part that is a share p of all ratings stands for KEPT_AWAY / p
    hits of the final kind: the parts are drawn as those were, at random per user, so both hit alike. The ideal is that of the
    number kept away of each user.
    """
    n_users = choices.shape[0]
    share = (1.0 - KEPT_AWAY) / len(found)
    gain, hits = np.zeros(n_users), np.zeros(n_users)
    for lists, hidden in found:
        keys = hidden.user * choices.shape[1] + hidden.item
        user, item = lists["user"].to_numpy(), lists["item"].to_numpy()
        hit = np.isin(user * choices.shape[1] + item, keys)
        gain += np.bincount(user, hit / np.log2(lists["rank"].to_numpy() + 1.0), minlength=n_users)
        hits += np.bincount(user, hit, minlength=n_users)
    scale = KEPT_AWAY / share / len(found)
    away = np.maximum(1, np.round(np.bincount(choices.user, minlength=n_users) * KEPT_AWAY / (1 - KEPT_AWAY))).astype(
        int
    )
    best = np.cumsum(1.0 / np.log2(np.arange(1, K + 1) + 1.0))[np.minimum(away, K) - 1]
    return {
        "ndcg": float(np.mean(scale * gain / best)),
        "recall": float(np.mean(scale * hits / away)),
        "map": float("nan"),
        "hit_rate": float("nan"),
    }


def dense_lists(score: Matrix) -> pl.DataFrame:
    """Top lists of a dense matrix."""
    best = np.argpartition(-score, K, axis=1)[:, :K]
    user = np.repeat(np.arange(len(score)), K)
    return top_lists(user, best.ravel(), np.take_along_axis(score, best, 1).ravel().astype(float), K)


def ratings(folder: Path, out: Path, threads: int, judge: bool) -> None:
    """Judges all methods on parts of the known ratings, hidden one after the other, then recommends with the stacked ranking."""
    choices, users, items = read_ratings(folder)
    settings = stacking.Settings(threads=threads)
    lists: dict[str, list[tuple[pl.DataFrame, stacking.Choices]]] = {}
    parts = []
    for part in stacking.held_out(choices, settings):
        parts.append((part.rows, part.label, part.hidden))
        for name, dense in part.scores.items() if judge else ():
            lists.setdefault(name, []).append((dense_lists(np.where(part.seen, -np.inf, dense)), part.hidden))
    if judge:
        half = np.random.default_rng(1).random(choices.shape[0]) < 0.5
        mean, ours = [], []
        models = [
            (users_asked, stacking.fit([(rows, label) for rows, label, _ in parts], settings, ~users_asked))
            for users_asked in (half, ~half)
        ]
        for rows, _, hidden in parts:
            score = np.zeros(len(rows.user))
            # Users are ranked by models that learnt from other users only.
            for users_asked, fitted in models:
                mine = users_asked[rows.user]
                score[mine] = stacking.scores_of(fitted, rows, threads)[mine]
            ours.append((top_lists(rows.user, rows.item, score, K), hidden))
            mean.append((top_lists(rows.user, rows.item, rows.mean, K), hidden))
        lists |= {"mean of all": mean, "npq (stacked LambdaRank)": ours}
        table = {name: final_like(found, choices) for name, found in lists.items()}
        print_table(f"Ratings, {settings.parts} parts of the known hidden in turn, scaled to what is kept away", table)
    models = stacking.fit([(rows, label) for rows, label, _ in parts], settings)
    rows = stacking.rows_of(choices, settings)
    best = top_lists(rows.user, rows.item, stacking.scores_of(models, rows, threads), K)
    for name in ("recommend_all", "recommend_new"):
        write_lists(best, users, items, out / f"{name}.parquet")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Folder of a data set, or of several.")
    parser.add_argument("--out", type=Path, default=Path("."), help="Where the lists go.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-judging", action="store_true", help="Only write the lists.")
    options = parser.parse_args()
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
            ratings(folder, out, options.threads, not options.no_judging)
        else:
            continue
        found += 1
        if alone:
            break
    if not found:
        raise SystemExit(f"{options.data}: no transactions*.parquet with products.parquet and no train.parquet")


if __name__ == "__main__":
    main()
