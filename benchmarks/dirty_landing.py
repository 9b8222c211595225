"""Landing folders that break every rule: `python -m benchmarks.dirty_landing --cases 10000`.

Each case is a folder of one to four files of a random table: wrong types, keys twice, torn files, odd encodings, huge fields,
headers only, formulas, bytes at random. What must hold: no crash, landed = accepted + superseded + quarantined, every file
accounted for, and `validate` says what `ingest` does.
"""

from __future__ import annotations

import argparse
import gzip
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars as pl

from npq_assets.contracts import LANDING, Kind, Table
from npq_assets.ingestion import ingest, validate
from npq_assets.settings import Home

_GOOD = {
    Kind.ID: ["a", "b", "007", "茶"],
    Kind.TEXT: ["x", "plant", "planned", "高山绿茶"],
    Kind.NUMBER: ["1", "2.5", "0", "1e2"],
    Kind.INTEGER: ["1", "2", "3.0"],
    Kind.FLAG: ["1", "no", "是", "TRUE"],
    Kind.DATE: ["2024-04-01", "2024/4/2", "2024-04-03 00:00:00"],
    Kind.TIMESTAMP: ["2024-04-01T10:00:00Z", "2024-04-01 10:00", "2024-04-01T10:00:00+08:00"],
}
_BAD = [
    "", " ", "nan", "-inf", "-5", "1,200", "1e999", "=SUM(A1)", "+1", "@x", "13/04/2024", "2024-13-01", "0000-00-00", "null", "'",
    '"', '""', 'a"b', "a,b", "a;b", "a\nb", "\t", "\0", "\ufffd", "🫖", "x" * 5000, "9" * 400, "２０２４", "true ", "<script>",
]  # fmt: skip


def _field(rng: random.Random, text: str, delimiter: str) -> str:
    if delimiter in text or '"' in text or "\n" in text or rng.random() < 0.05:
        return '"' + text.replace('"', '""') + '"' if rng.random() < 0.8 else text
    return text


def content(rng: random.Random, table: Table) -> tuple[str, bytes]:
    """A file's name ending and bytes."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice([".csv", ".csv.gz", ".parquet"]), rng.randbytes(rng.randrange(0, 400))
    columns = [c for c in table.columns if c.required or rng.random() < 0.6]
    if rng.random() < 0.07 and columns:
        columns.pop(rng.randrange(len(columns)))
    if rng.random() < 0.05 and columns:
        columns.append(rng.choice(columns))
    rng.shuffle(columns)
    rows = [
        [rng.choice(_BAD) if rng.random() < 0.07 else rng.choice(_GOOD[c.kind]) for c in columns]
        for _ in range(rng.choice([0, 1, 3, 12, 40]))
    ]
    if kind < 0.12 and columns and len({c.name for c in columns}) == len(columns):
        from io import BytesIO

        buffer = BytesIO()
        data = {c.name: [row[k] for row in rows] for k, c in enumerate(columns)}
        pl.DataFrame(data, schema=dict.fromkeys(data, pl.String)).write_parquet(buffer)
        return ".parquet", buffer.getvalue()[: rng.choice([None, None, None, 50])]
    delimiter, end = rng.choice(",,,;\t"), rng.choice(["\n", "\n", "\r\n", "\r"])
    names = [rng.choice([c.name, c.name.upper(), f" {c.name} "]) for c in columns]
    lines = [delimiter.join(names)] + [delimiter.join(_field(rng, v, delimiter) for v in row) for row in rows]
    if rng.random() < 0.1 and len(lines) > 1:
        lines[rng.randrange(1, len(lines))] += delimiter * rng.choice([1, 3]) + rng.choice(["", "x"])
    text = end.join(lines) + rng.choice([end, ""])
    data = text.encode(rng.choice(["utf-8", "utf-8-sig", "gb18030", "utf-16", "latin-1"]), "replace")
    if rng.random() < 0.08:
        data = data[: rng.randrange(len(data) + 1)]
    if rng.random() < 0.05 and data:
        place = rng.randrange(len(data))
        data = data[:place] + rng.randbytes(3) + data[place:]
    if rng.random() < 0.15:
        packed = gzip.compress(data)
        return ".csv.gz", packed[: len(packed) if rng.random() < 0.8 else rng.randrange(len(packed))]
    return ".csv", data


def check_case(seed: int, root: Path) -> Counter[str]:
    """Runs a case in `root`; raises AssertionError if something is lost."""
    rng = random.Random(seed)
    shutil.rmtree(root, ignore_errors=True)
    home, table = Home(root), rng.choice(list(LANDING.values()))
    folder = home.landing / table.domain / table.name
    folder.mkdir(parents=True)
    files = rng.randrange(1, 5)
    for k in range(files):
        suffix, data = content(rng, table)
        (folder / f"{k}{suffix}").write_bytes(data)
        if rng.random() < 0.1:
            (folder / f"{k}again{suffix}").write_bytes(data)
    expected = validate(home)[table.full_name]
    found = ingest(home, [table])[table.full_name]
    present = sum(1 for p in folder.iterdir())
    assert found.holds, f"seed {seed}: {found}"
    assert found.files == present, f"seed {seed}: {found.files} of {present} files accounted for"
    for name in ("landed", "accepted", "superseded", "quarantined", "unreadable_files"):
        assert getattr(found, name) == getattr(expected, name), f"seed {seed}: validate and ingest differ in {name}"
    raw = pl.read_parquet(home.raw_table(table.domain, table.name))
    assert raw.height == found.accepted, f"seed {seed}: {raw.height} rows in raw, {found.accepted} accepted"
    assert not raw.select(table.key).is_duplicated().any(), f"seed {seed}: a key twice in raw"
    return Counter(
        files=present, landed=found.landed, accepted=found.accepted, superseded=found.superseded,
        quarantined=found.quarantined, unreadable=found.unreadable_files,
    )  # fmt: skip


def main() -> None:
    """Runs the cases and prints the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    failures = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="npq-dirty-") as folder:
        for k in range(arguments.cases):
            try:
                total += check_case(arguments.seed + k, Path(folder) / "home")
            except Exception as error:
                failures += 1
                print(f"case {arguments.seed + k}: {type(error).__name__}: {str(error)[:300]}", flush=True)
    print(f"{arguments.cases} folders, {failures} failures, {time.monotonic() - began:.0f} s: {dict(total)}")


if __name__ == "__main__":
    main()
