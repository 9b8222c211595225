"""`make bench`: the benchmarks that need no outside data, one after the other."""

import subprocess
import sys

for words in (
    ["orchestration", "--rounds", "1"],
    ["ingestion"],
    ["stochastic_replenishment", "--extensive-seconds", "30"],
    ["dirty_landing", "--cases", "500"],
    ["robustness", "--kills", "5"],
):
    print(f"\n== python -m benchmarks.{' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]], check=True)
