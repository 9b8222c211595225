"""Rows that broke the contract and may have taken back a consent: whom they are about, as far as that can be read.

A quarantined row must not leave an older yes in force. What a doubt means for messages is decided in `retail.consent`.
"""

from __future__ import annotations

import re

import polars as pl

from npq_assets.contracts import Table
from npq_assets.ingestion.reader import LINE, RAW
from npq_assets.ingestion.rules import REASON, SAID, TORN

_MARKS = re.compile(r"[,;\t|]")
_INDEX = "__content"


class Doubts:
    """Collects a table's rows in doubt, content by content in the order of landing.

    Args:
        table: The contract; nothing is collected where it has no `doubt`.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._told = list(table.told)
        self._broken: list[pl.DataFrame] = []
        self._good: list[pl.DataFrame] = []

    def broken(self, index: int, file: str, rows: pl.DataFrame) -> None:
        """Adds quarantined rows, as `rules.judge` gives them; parts of an older format tell nothing but their text."""
        if rows.is_empty():
            return
        if TORN not in rows.columns:
            rows = rows.with_columns(
                pl.lit(True).alias(TORN), *[pl.lit(None, pl.String).alias(SAID + name) for name in self._told]
            )
        whole = rows.filter(~pl.col(TORN))
        if any(column.veto for column in self._table.columns):
            # Of contradicting rows of one file a no counts already.
            whole = whole.filter(~pl.col(REASON).str.starts_with("the same key as line "))
        frames = [whole.select(LINE, REASON, *[pl.col(SAID + name).alias(name) for name in self._told])]
        torn = [guess for row in rows.filter(TORN).iter_rows(named=True) for guess in self._guesses(row)]
        frames.append(pl.DataFrame(torn, schema=frames[0].schema))
        self._broken.append(
            pl.concat(frames).select(*self._told, REASON, LINE, pl.lit(file).alias("file"), pl.lit(index).alias(_INDEX))
        )

    def _guesses(self, row: dict[str, object]) -> list[dict[str, object]]:
        """A torn row may be about anybody whose id stands in it."""
        fields = {field.strip().strip("\"'") for field in _MARKS.split(str(row[RAW]))} - {""}
        told: dict[str, object] = dict.fromkeys(self._told)
        for column in self._table.columns:
            if column.choices and column.name in told:
                told[column.name] = next((choice for choice in column.choices if choice in fields), None)
        return [{LINE: row[LINE], REASON: row[REASON], **told, self._table.doubt[0]: field} for field in sorted(fields)]

    def accepted(self, index: int, rows: pl.DataFrame) -> None:
        """Adds good rows: the columns of `doubt`."""
        self._good.append(rows.unique().with_columns(pl.lit(index).alias("__good")))

    def frame(self) -> pl.DataFrame:
        """The columns told, reason, line, file, and whether a good row with the same `doubt` landed in a later file."""
        schema: dict[str, pl.DataType] = {name: pl.String() for name in self._told}
        if not self._broken:
            more = {"reason": pl.String(), "line": pl.Int64(), "file": pl.String(), "lifted": pl.Boolean()}
            return pl.DataFrame(schema={**schema, **more})
        key = list(self._table.doubt)
        latest = pl.concat(self._good).group_by(key).agg(pl.col("__good").max())
        broken = pl.concat(self._broken).filter(pl.any_horizontal(pl.col(name).is_not_null() for name in key))
        rows = broken.join(latest, on=key, how="left")
        return rows.select(
            *self._told,
            pl.col(REASON).alias("reason"),
            pl.col(LINE).alias("line"),
            "file",
            (pl.col("__good") > pl.col(_INDEX)).fill_null(False).alias("lifted"),
        ).sort("file", "line", *self._told)

    def standing(self) -> list[str]:
        """Ids of customers in doubt."""
        if not self._table.doubt:
            return []
        return self.frame().filter(~pl.col("lifted"))[self._table.doubt[0]].drop_nulls().unique().sort().to_list()
