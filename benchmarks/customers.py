"""Who comes back and what they spend: `python -m benchmarks.customers --data DIR --out DIR`.

DIR is a folder of The Complete Journey or of Online Retail (`transactions*.parquet`, `customer_keys.parquet`), or one that
holds such folders. Written: `customers.parquet` (user, p_active, spend) for the 28 days (Online Retail: 90 days) after the last
one known. `spend` is the median, the point forecast of least absolute error.

The table judges the models on the last known horizon, each fitted before it only. `ECE` is the mean distance of expected and
observed shares over ten bins of equal size; `chance` is what it would be on average if every probability were right.

Demographics are not used: they carry no date, and households that have them came in far more often than expected up to the
month in which they seem to have been asked, and no more afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.customers.value import Settings, closed_form, predict
from npq_assets.customers.visits import Visits, summarize, visits_of


def read(folder: Path) -> tuple[Visits, int, int]:
    """Visits, the day after the last known one, and the horizon in days."""
    frame = pl.concat([pl.read_parquet(f) for f in sorted(folder.glob("transactions*.parquet"))])
    keys = pl.read_parquet(folder / "customer_keys.parquet")["user"].cast(pl.Int64)
    if "household_id" in frame.columns:
        weekday = pl.col("transaction_timestamp").dt.offset_by("-5h").dt.weekday() - 1
        lines = frame.select(
            user=pl.col("household_id").cast(pl.Int64),
            day=(pl.col("week").cast(pl.Int64) - 1) * 7 + weekday,
            amount="sales_value",
            discount=pl.col("retail_disc") + pl.col("coupon_disc"),
        )
        return visits_of(lines, keys), 7 * int(frame.select(pl.col("week").max()).item()), 28
    bought = (
        pl.col("InvoiceDate").str.to_datetime() if frame["InvoiceDate"].dtype == pl.String else pl.col("InvoiceDate")
    )
    lines = frame.filter(pl.col("CustomerID").is_not_null()).select(
        user=pl.col("CustomerID").cast(pl.Int64),
        day=bought.dt.epoch("d").cast(pl.Int64),
        amount=pl.col("Quantity") * pl.col("UnitPrice"),
    )
    return visits_of(lines, keys), int(lines["day"].max()) + 1, 90  # type: ignore[arg-type]


def calibration(p: np.ndarray, active: np.ndarray, bins: int = 10) -> tuple[float, float]:
    """Mean distance of expected and observed shares over bins of equal size, and its mean if every p were right."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    found = [abs(p[part].mean() - active[part].mean()) for part in parts]
    # The mean distance of a normal variable is sqrt(2 / pi) of its standard deviation.
    chance = [np.sqrt(2 / np.pi * (p[part] * (1 - p[part])).sum()) / len(part) for part in parts]
    return float(np.mean(found)), float(np.mean(chance))


def judge(visits: Visits, end: int, horizon: int, threads: int) -> None:
    """Prints how the models did on the last known horizon."""
    from sklearn.metrics import roc_auc_score

    day = end - horizon
    truth = visits.between(day, end)
    spend = truth.total(truth.amount)
    seen = summarize(visits, day).age > 0
    active = (np.bincount(truth.customer, minlength=len(spend)) > 0)[seen]
    before = visits.between(day - horizon, day)
    last = before.total(before.amount)
    rows = {"same as last horizon": ((last > 0).astype(float) * 0.8 + 0.1, last)}
    complete = max(1, min(6, (day - int(visits.day.min())) // horizon))
    past = [visits.between(day - (k + 1) * horizon, day - k * horizon) for k in range(complete)]
    spends = np.stack([v.total(v.amount) for v in past])
    rows["mean, median of past horizons"] = ((spends > 0).mean(axis=0) * 0.9 + 0.05, np.median(spends, axis=0))
    p, mean = closed_form(visits, day, horizon)
    rows["BG/NBD + gamma-gamma"] = (p, mean)
    ours = predict(visits, day, Settings(horizon=horizon, threads=threads))
    rows[f"npq ({ours.activity_model})"] = (ours.p_active, ours.spend_q50)
    print(f"{'model':<36}{'AUC':>8}{'mean p':>8}{'rate':>8}{'Brier':>8}{'ECE':>8}{'chance':>8}{'spend MAE':>11}")
    for name, (p, value) in rows.items():
        off, chance = calibration(p[seen], active)
        print(
            f"{name:<36}{roc_auc_score(active, p[seen]):>8.4f}{p[seen].mean():>8.3f}{active.mean():>8.3f}"
            f"{np.mean((p[seen] - active) ** 2):>8.4f}{off:>8.4f}{chance:>8.4f}{np.abs(value - spend)[seen].mean():>11.2f}"
        )


def run(folder: Path, out: Path, threads: int, judging: bool) -> None:
    """Judges, then writes the predictions for the customers asked for."""
    visits, end, horizon = read(folder)
    print(f"\n{folder.name}: {len(visits.customers)} customers, {horizon} days ahead")
    if judging:
        judge(visits, end, horizon, threads)
    ours = predict(visits, end, Settings(horizon=horizon, threads=threads))
    keys = pl.read_parquet(folder / "customer_keys.parquet")
    place = np.searchsorted(visits.customers, keys["user"].to_numpy())
    out.mkdir(parents=True, exist_ok=True)
    keys.select("user").with_columns(
        pl.Series("p_active", ours.p_active[place]), pl.Series("spend", ours.spend_q50[place])
    ).write_parquet(out / "customers.parquet")
    print(f"{out / 'customers.parquet'}: {keys.height} rows ({ours.activity_model}; {ours.spend_model})")
    for name, value in ours.judgement.items():
        print(f"  {name}: {value if isinstance(value, str) else np.round(value, 4)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-judging", action="store_true", help="Only write the predictions.")
    options = parser.parse_args()
    found = 0
    for folder in [options.data, *sorted(f for f in options.data.glob("*") if f.is_dir())]:
        if (folder / "customer_keys.parquet").exists() and any(folder.glob("transactions*.parquet")):
            alone = folder == options.data
            run(folder, options.out if alone else options.out / folder.name, options.threads, not options.no_judging)
            found += 1
            if alone:
                break
    if not found:
        raise SystemExit(f"{options.data}: no transactions*.parquet with customer_keys.parquet; give such a folder")


if __name__ == "__main__":
    main()
