"""Recommendations for 100,000 customers x 20,000 products: `python -m benchmarks.recommendation_scale`.

The product's own way from purchases to lists (`recommendation.lists.rank_products`: judged, trained, "again" and "new" lists of
30 for everybody) on invented purchases with long tails, beside two rivals that only score: item-kNN and implicit ALS, best ten of
all products, each in a process of its own so that its peak memory is its own. Printed: wall and processor seconds, peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import polars as pl

from npq_assets.recommendation.factors import implicit_factors, item_neighbours
from npq_assets.recommendation.lists import rank_products
from npq_assets.recommendation.purchases import Purchases, purchases_of

METHODS = ("npq", "item-kNN", "implicit ALS")
K = 10


def invented(customers: int, products: int, lines: int, days: int = 180, seed: int = 0) -> Purchases:
    """Purchases of customers with tastes for families, most by a few and of a few products, half of them bought again."""
    rng = np.random.default_rng(seed)
    families = 200
    family = rng.integers(0, families, products)
    popular = rng.zipf(1.3, products).clip(max=2000).astype(float)
    by_family = [np.flatnonzero(family == f) for f in range(families)]
    busy = rng.gamma(0.7, 1.0, customers)
    user = rng.choice(customers, lines, p=busy / busy.sum())
    taste = rng.integers(0, families, (customers, 8))
    chosen = taste[user, rng.integers(0, 8, lines)]
    item = np.empty(lines, np.int64)
    for f in range(families):
        mine = np.flatnonzero(chosen == f)
        weight = popular[by_family[f]]
        item[mine] = rng.choice(by_family[f], len(mine), p=weight / weight.sum())
    day = rng.integers(0, days, lines)
    # A habit: every second line repeats what its customer bought in another.
    order = np.lexsort((rng.random(lines), user))
    same = np.r_[False, user[order][1:] == user[order][:-1]] & (rng.random(lines) < 0.5)
    item[order[same]] = item[order[np.flatnonzero(same) - 1]]
    frame = pl.DataFrame({"user": user, "item": item, "day": day, "amount": rng.gamma(2.0, 2.0, lines)})
    return purchases_of(
        frame,
        pl.DataFrame({"item": np.arange(products), "family": family}),
        users=pl.Series("user", np.arange(customers)),
    )


def measure(method: str, purchases: Purchases, threads: int) -> int:
    """Runs a method; returns how many recommendations it made."""
    if method == "npq":
        return rank_products(purchases, purchases.last_day + 1, threads=threads).lists.height
    bought = purchases.matrix()
    count = 0
    if method == "item-kNN":
        model = item_neighbours(bought, 50)
        for start in range(0, bought.shape[0], 1000):
            score = model.scores(bought[start : start + 1000])
            count += np.argpartition(-score, K, axis=1)[:, :K].size
        return count
    factors = implicit_factors(bought, 32, sweeps=8)
    for start in range(0, bought.shape[0], 1000):
        score = factors.scores(slice(start, start + 1000))
        count += np.argpartition(-score, K, axis=1)[:, :K].size
    return count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--lines", type=int, help="Purchase lines; 50 a customer if not given.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=METHODS, help="Run one method in this process and print JSON.")
    options = parser.parse_args()
    lines = options.lines or 50 * options.customers
    if options.only:
        purchases = invented(options.customers, options.products, lines)
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.monotonic()
        count = measure(options.only, purchases, options.threads)
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = time.monotonic() - started
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({"rows": count, "seconds": seconds, "cpu": cpu, "gb": after.ru_maxrss / 2**20}))
        return
    print(f"{options.customers:,} customers x {options.products:,} products, {lines:,} lines")
    print(f"{'method':<16}{'rows':>12}{'seconds':>9}{'processor s':>13}{'peak GB':>9}")
    for method in METHODS:
        command = [sys.executable, "-m", "benchmarks.recommendation_scale", "--only", method]
        for name in ("customers", "products", "threads"):
            command += [f"--{name}", str(getattr(options, name))]
        done = subprocess.run([*command, "--lines", str(lines)], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"{method:<16}{row['rows']:>12,}{row['seconds']:>9.0f}{row['cpu']:>13.0f}{row['gb']:>9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
