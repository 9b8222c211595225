"""Where a customer stands in a file, and the file without them: by column where there are columns, else by word.

An id such as `17` means a customer in a column of customers only; anywhere else it is a quantity or another thing's id.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from npq_assets.contracts import LANDING
from npq_assets.ingestion.reader import delimiter_of, encoding_of
from npq_assets.storage import replacing, write_parquet

_SHORTEST = 4


@dataclass(frozen=True)
class Wanted:
    """What a customer is known by.

    Attributes:
        customer_id: The id.
        words: What can mean nobody else: pseudonym, own addresses, ids of messages.
    """

    customer_id: str
    words: frozenset[str]

    @property
    def distinct(self) -> bool:
        """Whether the id can be searched for outside columns of customers: not a number, and not as short as a size."""
        return len(self.customer_id) >= _SHORTEST and any(letter.isalpha() for letter in self.customer_id)

    @property
    def anywhere(self) -> frozenset[str]:
        """The words to search for in text without columns."""
        return self.words | {self.customer_id} if self.distinct else self.words


def without(place: Path, wanted: Wanted) -> int:
    """Removes the rows that name the customer from a file, messages as a whole; returns how many."""
    if _is_parquet(place):
        frame = pl.read_parquet(place, hive_partitioning=False)
        kept = frame.filter(~_hits(frame, wanted))
        if kept.height < frame.height:
            write_parquet(kept, place)
        return frame.height - kept.height
    if place.suffix == ".eml":
        if not holds(place, wanted):
            return 0
        place.unlink()
        return 1
    text, encoding = _text(place)
    kept_records, removed = [], 0
    for record, named in _judged(place, text, wanted):
        removed += named
        if not named:
            kept_records.append(record)
    if removed:
        written = "".join(kept_records).encode(encoding, errors="surrogateescape")
        with replacing(place) as temporary:
            temporary.write_bytes(gzip.compress(written, mtime=0) if _is_zipped(place) else written)
    return removed


def holds(place: Path, wanted: Wanted) -> bool:
    """Whether the file, or its name, names the customer."""
    if any(_names(place.name, word) for word in wanted.anywhere):
        return True
    if _is_parquet(place):
        try:
            frame = pl.read_parquet(place, hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError):
            return _in_bytes(place.read_bytes(), wanted)
        return bool(frame.select(_hits(frame, wanted).any()).item()) or _in_words(frame, wanted)
    data = _content(place)
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _in_bytes(data, wanted)
    text, _ = _text(place)
    return any(named for _, named in _judged(place, text, wanted))


def _is_parquet(place: Path) -> bool:
    return place.name.lower().endswith(".parquet")


def _is_zipped(place: Path) -> bool:
    return place.name.lower().endswith(".gz")


def _hits(frame: pl.DataFrame, wanted: Wanted) -> pl.Expr:
    """Rows whose customer it is, or that hold one of the words as a value of their own."""
    customer_id, words = wanted.customer_id, list(wanted.words)
    found = [pl.lit(False)]
    for name, kind in frame.schema.items():
        mine = name.lower().endswith("customer_id")
        if kind == pl.String:
            text = pl.col(name).str.strip_chars()
            found.append(text.is_in([*words, customer_id] if mine else words).fill_null(False))
        elif kind.is_integer() and mine and customer_id.isdigit():
            found.append((pl.col(name) == int(customer_id)).fill_null(False))
    return pl.any_horizontal(found)


def _in_words(frame: pl.DataFrame, wanted: Wanted) -> bool:
    """Whether some longer text mentions one of the words."""
    for name, kind in frame.schema.items():
        if kind != pl.String:
            continue
        some = frame[name].unique().drop_nulls()
        for word in wanted.anywhere:
            near = some.filter(some.str.contains(word, literal=True))
            # A value that is the id, in a column of other things, is the id of one of those.
            if any(_names(value, word) for value in near.to_list() if value.strip() != wanted.customer_id):
                return True
    return False


def _in_bytes(data: bytes, wanted: Wanted) -> bool:
    """Binary files have no words with ends: the bytes are enough; an id that means nothing there, beside `customer`."""
    if any(word.encode() in data for word in wanted.anywhere):
        return True
    return not wanted.distinct and _beside(data.decode("utf-8", errors="replace"), wanted.customer_id)


def _beside(text: str, customer_id: str) -> bool:
    """Whether the id stands right behind the word customer or customer_id."""
    return re.search(rf"(?i)customer(?:[ _]?id)?\W{{1,6}}{re.escape(customer_id)}(?![\w-])", text) is not None


def _judged(place: Path, text: str, wanted: Wanted) -> Iterator[tuple[str, bool]]:
    """The records of a text file, and whether each names the customer."""
    table = _table_of(place)
    columns = place.name.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".txt")) or table is not None
    if not columns:
        for record in text.splitlines(keepends=True):
            plain = not wanted.distinct and _beside(record, wanted.customer_id)
            yield record, plain or any(_names(record, word) for word in wanted.anywhere)
        return
    header: list[str] | None = None
    mark = ","
    for record in _records(text):
        if header is None:
            if record.strip():
                mark = delimiter_of(record)
                header = [name.strip().strip("\ufeff").lower() for name in _fields(record, mark)]
            yield record, False
        elif wanted.customer_id in record or any(word in record for word in wanted.words):
            yield record, _of_customer(record, header, mark, wanted)
        else:
            yield record, False


def _of_customer(record: str, header: list[str], mark: str, wanted: Wanted) -> bool:
    # A spreadsheet is kept from running a cell by a quote in front of it.
    fields = [field.strip().removeprefix("'") for field in _fields(record, mark)]
    customers = [k for k, name in enumerate(header) if name.endswith("customer_id")]
    if len(fields) != len(header) and customers:
        customers = list(range(len(fields)))  # a torn record: its columns are anybody's guess
    if any(k < len(fields) and fields[k] == wanted.customer_id for k in customers):
        return True
    # A field that is the id, in a column of other things, is the id of one of those.
    texts = [field for field in fields if field != wanted.customer_id]
    return any(_names(field, word) for field in texts for word in wanted.anywhere)


def _fields(record: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([record.rstrip("\r\n")], delimiter=mark), [])
    except csv.Error:
        return record.split(mark)


def _table_of(place: Path) -> str | None:
    """The landing table whose folder holds the file."""
    names = {f"{a}.{b}" for a, b in zip(place.parts, place.parts[1:], strict=False)}
    return next((name for name in LANDING if name in names and "landing" in place.parts), None)


def _records(text: str) -> Iterator[str]:
    """Lines of a CSV file; a line whose quotes do not close goes on in the next."""
    waiting = ""
    lines = re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$", text)
    for number, line in enumerate(lines):
        waiting += line
        # A quote that never closes must not swallow the rest of the file.
        if waiting.count('"') % 2 == 0 or number == len(lines) - 1 or waiting.count("\n") > 50:
            yield waiting
            waiting = ""


def _names(text: str, word: str) -> bool:
    """Whether the text holds the word as a word of its own, not as part of a longer id."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        before = text[start - 1] if start else ","
        after = text[end] if end < len(text) else ","
        if not (before.isalnum() or before in "_-") and not (after.isalnum() or after in "_-"):
            return True
        start = text.find(word, start + 1)
    return False


def _content(place: Path) -> bytes:
    data = place.read_bytes()
    if _is_zipped(place):
        try:
            return gzip.decompress(data)
        except (OSError, EOFError):
            return data
    return data


def _text(place: Path) -> tuple[str, str]:
    """The text of a file and the encoding to write it in again."""
    encoding = encoding_of(place)
    return _content(place).decode(encoding, errors="surrogateescape"), encoding


__all__ = ["Wanted", "holds", "without"]
