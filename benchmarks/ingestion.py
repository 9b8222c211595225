"""Sales rows from CSV to the raw table: `python -m benchmarks.ingestion [--rows N] [--files N]`.

Beside a pandas read of the same file with types, which checks nothing, for the ratio.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def write_sales(landing: Path, rows: int, files: int) -> list[Path]:
    """Daily sales of 10,000 series, as `files` CSV files."""
    folder = landing / "retail" / "sales"
    folder.mkdir(parents=True)
    places = []
    for k in range(files):
        i = np.arange(rows * k // files, rows * (k + 1) // files)
        frame = pl.DataFrame(
            {
                "sold_on": pl.Series(np.datetime64("2021-01-01") + (i // 10_000).astype("timedelta64[D]")),
                "site_id": pl.Series(i % 100).cast(pl.String),
                "product_id": pl.Series((i // 100) % 100).cast(pl.String),
                "quantity": (i % 17).astype(float),
                "price": np.round((i % 1000) / 10, 2),
                "promotion": i % 2,
            }
        )
        places.append(folder / f"{k:03d}.csv")
        frame.write_csv(places[-1])
    return places


_NPQ = """
import sys
from npq_assets.contracts import LANDING
from npq_assets.ingestion import ingest
from npq_assets.settings import Home
found = ingest(Home.at(sys.argv[1]), [LANDING["retail.sales"]])["retail.sales"]
assert found.holds and found.accepted > 0, found
"""
_PANDAS = """
import sys
from pathlib import Path
import pandas as pd
types = {"site_id": str, "product_id": str}
files = sorted(Path(sys.argv[1]).rglob("sales/*.csv"))
frames = [pd.read_csv(f, parse_dates=["sold_on"], dtype=types) for f in files]
pd.concat(frames).to_parquet(sys.argv[1] + "/pandas.parquet")
"""


def timed(script: str, home: Path) -> tuple[float, float]:
    """Seconds and peak memory (GB) of a script in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script, str(home)], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.monotonic() - began, max(peak, before) / 1e6


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="npq-ingestion-") as folder:
        home = Path(folder)
        write_sales(home / "landing", arguments.rows, arguments.files)
        seconds, peak = timed(_NPQ, home)
        print(f"npq: {arguments.rows:,} rows in {arguments.files} files: {seconds:.1f} s, {peak:.2f} GB")
        again, _ = timed(_NPQ, home)
        print(f"npq, nothing new: {again:.1f} s")
        correction = home / "landing/retail/sales/zzz.csv"
        correction.write_text("sold_on,site_id,product_id,quantity\n2021-01-01,0,0,99\n")
        once_more, _ = timed(_NPQ, home)
        print(f"npq, one row put right: {once_more:.1f} s")
        pandas, _ = timed(_PANDAS, home)
        print(f"pandas, the same files without any check: {pandas:.1f} s; ratio {seconds / pandas:.2f}")


if __name__ == "__main__":
    main()
