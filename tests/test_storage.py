"""Tables are written whole or not at all, and equal rows give equal bytes and fingerprints."""

import csv
import io
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.storage import fingerprint, replacing, write_bytes, write_csv_for_people, write_parquet

FRAME = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    place = tmp_path / "t.bin"
    write_bytes(b"old", place)
    with pytest.raises(RuntimeError), replacing(place) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert place.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.bin"]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    write_parquet(FRAME, tmp_path / "one.parquet")
    write_parquet(pl.concat([FRAME.head(1), FRAME.tail(2)]), tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_fingerprint_ignores_chunks_and_sees_every_change() -> None:
    base = fingerprint(FRAME, "k")
    assert base == fingerprint(pl.concat([FRAME.head(1), FRAME.tail(2)]), "k")
    others = [
        fingerprint(FRAME, "l"),
        fingerprint(FRAME.reverse(), "k"),
        fingerprint(FRAME.rename({"a": "c"}), "k"),
        fingerprint(FRAME.with_columns(pl.col("a").cast(pl.Int32)), "k"),
        fingerprint(FRAME.head(2), "k"),
    ]
    assert len({base, *others}) == 6


@given(st.text(min_size=1, max_size=20))
def test_no_cell_of_a_csv_for_people_runs_as_a_formula(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "t.csv"
        write_csv_for_people(pl.DataFrame({"a": [text]}), place)
        rows = list(csv.reader(io.StringIO(place.read_bytes().decode("utf-8-sig"), newline="")))
    cell = rows[1][0] if len(rows) > 1 else ""
    assert cell[:1] not in {"=", "+", "-", "@"}
