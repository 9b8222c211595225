"""Do upper levels gain, and do they help the lower ones: reconciled forecasts beside bottom-up and direct ones.

`python -m benchmarks.hierarchy --data DIR --out DIR` with DIR as for `benchmarks.forecast` (sub-folders with history, static,
dev_keys and protocol.json). Every attribute of `static` is a level, and so is the whole. Judged at the cutoffs of dev_keys.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.forecasting.hierarchy import hierarchical
from npq_assets.forecasting.model import Settings


def main() -> None:
    """Prints a row a set, cutoff and level, and writes hierarchy.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", default="aus_retail,m5_280,walmart")
    parser.add_argument("--cutoffs", type=int, default=2, help="The last so many of dev_keys.")
    parser.add_argument("--rows", type=int, default=150_000, help="Training rows at most.")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    protocol = json.loads((arguments.data / "protocol.json").read_text())
    rows = []
    for name in arguments.sets.split(","):
        cutoffs = pl.read_parquet(arguments.data / name / "dev_keys.parquet")["cutoff"].cast(pl.Date).unique().sort()
        for cutoff in cutoffs.to_list()[-arguments.cutoffs :]:
            rows += measure(arguments.data / name, protocol[name], cutoff, arguments.rows, arguments.threads)
            print_table(rows[-rows[-1]["levels"] :])
    arguments.out.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).drop("levels").write_parquet(arguments.out / "hierarchy.parquet")


def measure(
    folder: Path, protocol: dict[str, object], cutoff: object, rows: int, threads: int
) -> list[dict[str, object]]:
    """WAPE of the means by level, of the three ways, and coverage of the reconciled 80 % range."""
    history = (
        pl.read_parquet(folder / "history.parquet")
        .with_columns(pl.col("ds").cast(pl.Date))
        .drop("weight", strict=False)
    )
    ahead, static = folder / "known_ahead.parquet", pl.read_parquet(folder / "static.parquet")
    future = pl.read_parquet(ahead).with_columns(pl.col("ds").cast(pl.Date)) if ahead.exists() else None
    levels = [[c] for c in static.columns if c != "unique_id"] + [[]]
    started = time.monotonic()
    found = hierarchical(
        history.filter(pl.col("ds") <= cutoff),
        int(str(protocol["horizon"])),
        str(protocol["freq"]),
        levels,
        static=static,
        future=future,
        settings=Settings(max_rows=rows),
        threads=threads,
    )
    seconds = time.monotonic() - started
    actual = history.filter((pl.col("ds") > cutoff) & (pl.col("ds") <= found.bottom.dates[-1]))
    keys = pl.DataFrame({"unique_id": found.bottom.ids.astype(str)}).join(
        pl.DataFrame({"ds": found.bottom.dates}), how="cross", maintain_order="left_right"
    )
    joined = keys.join(actual, on=["unique_id", "ds"], how="left", maintain_order="left")
    truth = joined["y"].to_numpy().reshape(found.mean.shape)
    seen = np.isfinite(truth)
    y = np.where(seen, truth, 0.0)
    plain = found.bottom.expected()
    paths = found.paths(200) * seen[:, None, :]
    low, high = np.quantile(found.aggregated(paths), [0.1, 0.9], axis=1)
    total = found.aggregated(y)
    up, new = found.aggregated(plain * seen), found.aggregated(found.mean * seen)
    # Direct forecasts know nothing of series that ended: they are judged on the share that is left.
    whole = found.aggregated(found.mean)
    direct = found.direct * np.divide(new, whole, out=np.ones_like(new), where=whole > 0)
    print(f"step {found.errors.step}, held out over bottom-up: {found.errors.evidence}", flush=True)
    out = []
    for k, level in enumerate(found.hierarchy.levels):
        r = found.hierarchy.level == k
        size = np.abs(total[r]).sum()
        out.append(
            {
                "set": folder.name, "cutoff": str(cutoff), "level": level, "series": int(r.sum()),
                "bottom_up": float(np.abs(total[r] - up[r]).sum() / size),
                "direct": float(np.abs(total[r] - direct[r]).sum() / size),
                "reconciled": float(np.abs(total[r] - new[r]).sum() / size),
                "coverage_80": float(((total[r] >= low[r]) & (total[r] <= high[r])).mean()),
                "seconds": seconds, "levels": len(found.hierarchy.levels) + 1,
            }
        )  # fmt: skip
    out.append(
        {
            "set": folder.name, "cutoff": str(cutoff), "level": "series", "series": len(y),
            "bottom_up": float(np.abs(y - plain * seen).sum() / np.abs(y).sum()), "direct": None,
            "reconciled": float(np.abs(y - found.mean * seen).sum() / np.abs(y).sum()),
            "coverage_80": None, "seconds": seconds, "levels": len(found.hierarchy.levels) + 1,
        }
    )  # fmt: skip
    return out


def print_table(rows: list[dict[str, object]]) -> None:
    """The rows as a table: WAPE of the means."""
    print(
        f"{'set':<12}{'cutoff':<12}{'level':<12}{'series':>7}{'bottom-up':>11}{'direct':>9}{'reconciled':>12}{'80 %':>7}{'s':>6}"
    )
    for row in rows:
        cells = [f"{row[c]:.4f}" if row[c] is not None else "-" for c in ("bottom_up", "direct", "reconciled")]
        cover = f"{row['coverage_80']:.2f}" if row["coverage_80"] is not None else "-"
        print(
            f"{row['set']:<12}{row['cutoff']:<12}{row['level']:<12}{row['series']:>7}{cells[0]:>11}{cells[1]:>9}"
            f"{cells[2]:>12}{cover:>7}{row['seconds']:>6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
