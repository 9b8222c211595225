"""What orchestration costs: `python -m benchmarks.orchestration`.

The demo's run (Dagster, dbt, imports, events, checks, process start) beside the same work called bare in one process: the
sample, ingestion, the models' SQL in DuckDB, forecast, plan, decisions, ledger and report. Same home layout, same results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SCRIPT = Path(__file__).with_name("_bare_demo.py")


def timed(words: list[str]) -> float:
    """Seconds of a command."""
    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    """Prints both and the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    shares = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="npq-orchestration-") as folder:
            graph = timed([sys.executable, "-m", "npq_assets.cli", "demo", "--home", f"{folder}/graph"])
            compiled = Path(folder) / "graph" / "warehouse" / "target" / "compiled"
            bare = timed([sys.executable, str(_SCRIPT), f"{folder}/bare", str(compiled)])
            shares.append(1 - bare / graph)
            print(
                f"demo {graph:.1f} s, the same functions bare {bare:.1f} s, orchestration {shares[-1]:.0%}", flush=True
            )
    print(json.dumps({"orchestration_share": round(sum(shares) / len(shares), 3)}))


if __name__ == "__main__":
    main()
