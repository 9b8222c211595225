"""From the bytes of a landing file to rows of text, with the line that each came from.

Clean text (no quotes) is split column-wise and fast; anything else goes row by row through the csv module. Both give the
same rows. What a value means does not belong here (see `rules`).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from npq_assets.contracts import Table

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
_BLOCK = 24 << 20
_SLOW_ROWS = 100_000
_PARQUET_ROWS = 500_000
LINE, RAW, BROKEN = "__line", "__raw", "__broken"


class Unreadable(Exception):
    """The file as a whole cannot be read; the message says why and what to do."""


@dataclass(frozen=True)
class Header:
    """What the first line says.

    Attributes:
        names: Column names in the file's order, lower case.
        delimiter: The field separator.
    """

    names: tuple[str, ...]
    delimiter: str


def read_rows(path: Path, table: Table) -> Iterator[pl.DataFrame]:
    """Blocks of rows as text: the contract's columns that the file has, its further columns if the table keeps them.

    Every block also has `__line` (1-based line, or row of a Parquet file), `__raw` (the row's text) and `__broken` (why the
    row cannot be split into columns; null if it can).

    Raises:
        Unreadable: The file cannot be read at all.
    """
    if path.name.lower().endswith(".parquet"):
        yield from _parquet_blocks(path, table)
    else:
        yield from _csv_blocks(path, table)


@dataclass(frozen=True)
class Block:
    """Some rows of a file, not yet turned into text one by one where that can be avoided.

    Attributes:
        plain: The contract's columns that the file has, as text or in a Parquet file's own types; None where the rows must be
            split one by one first.
        lines: The line of each row.
        as_text: The rows (those of a mask, if one is given) as `read_rows` yields them.
    """

    plain: pl.DataFrame | None
    lines: pl.Series
    as_text: Callable[..., pl.DataFrame]


def read_blocks(path: Path, table: Table, *, comma: bool = False) -> Iterator[Block]:
    """The same rows as `read_rows`, in blocks whose plainest rows need not become text.

    Raises:
        Unreadable: The file cannot be read at all.
    """
    if path.name.lower().endswith(".parquet"):
        for batch, names, line in _parquet_batches(path, table):
            yield _parquet_block(batch, names, line, table)
        return
    encoding, look = _encoding(path)
    if look.empty or look.quotes or look.carriage_returns_only or comma or encoding != "utf-8-sig":
        for rows in _csv_blocks(path, table):
            yield _text_block(rows)
        return
    for text, line, header in _texts(path, table, encoding):
        yield _csv_block(text, line, header, table)


def _text_block(rows: pl.DataFrame) -> Block:
    return Block(None, rows[LINE], lambda mask=None: rows if mask is None else rows.filter(mask))


def _parquet_block(batch: pa.RecordBatch, names: tuple[str, ...], line: int, table: Table) -> Block:
    kept = _kept(names, table)
    lines = pl.int_range(line, line + batch.num_rows, dtype=pl.Int64, eager=True)

    def as_text(mask: pl.Series | None = None) -> pl.DataFrame:
        some = batch if mask is None else batch.filter(mask.to_arrow())
        return _with_lines(_as_text(some, names, kept), lines if mask is None else lines.filter(mask))

    columns = {name: pl.Series(name, pl.from_arrow(batch.column(names.index(name)))) for name in kept}
    return Block(pl.DataFrame(columns), lines, as_text)


def _csv_block(text: bytes, line: int, header: Header, table: Table) -> Block:
    """Whole lines; read column-wise if each has as many fields as the header and nothing odd in it."""
    n = len(header.names)
    rows = text.count(b"\n") + (not text.endswith(b"\n"))
    fields = {f"field_{k}": pl.String for k in range(n)}

    def slowly() -> pl.DataFrame:
        lines = text.decode("utf-8", "replace").split("\n")
        if not lines[-1]:
            lines.pop()
        return _split(pl.Series(RAW, lines, dtype=pl.String), line, header, table)

    odd = n < 2 or b"\0" in text or b"\xef\xbf\xbd" in text or text.count(header.delimiter.encode()) != rows * (n - 1)
    frame = None
    if not odd:
        try:
            frame = pl.read_csv(
                text, has_header=False, schema=fields, separator=header.delimiter, quote_char=None
            )  # fmt: skip
        except pl.exceptions.PolarsError:
            frame = None
    # Fewer rows than lines: some line was empty. With as many separators as there must be in all, and none too long, each
    # line has its share.
    if frame is None or frame.height != rows:
        return _text_block(slowly())
    whole = frame
    last = f"field_{n - 1}"
    if b"\r" in text:
        whole = whole.with_columns(pl.col(last).str.strip_chars_end("\r"))
    lines = pl.int_range(line, line + rows, dtype=pl.Int64, eager=True)
    kept = _kept(header.names, table)
    plain = whole.select(pl.col(f"field_{header.names.index(name)}").alias(name) for name in kept)

    def as_text(mask: pl.Series | None = None) -> pl.DataFrame:
        some, at = (whole, lines) if mask is None else (whole.filter(mask), lines.filter(mask))
        raw = some.select(pl.concat_str(pl.all().fill_null(""), separator=header.delimiter).alias(RAW))[RAW]
        return (
            _split(raw, 1, header, table).with_columns(at.alias(LINE)) if some.height else _split(raw, 1, header, table)
        )

    return Block(plain, lines, as_text)


def _texts(path: Path, table: Table, encoding: str) -> Iterator[tuple[bytes, int, Header]]:
    """Blocks of whole lines of UTF-8 with the number of their first line; the header is taken off."""
    rest, line = b"", 1
    header: Header | None = None
    for block in _blocks_of(path):
        text = rest + block
        if header is None and line == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        cut = text.rfind(b"\n") + 1
        text, rest = text[:cut], text[cut:]
        while header is None and text:
            first, _, text = text.partition(b"\n")
            line += 1
            if first.strip():
                header = _header(first.decode("utf-8", "replace"), table)
        if text and header is not None:
            yield text, line, header
            line += text.count(b"\n")
    if header is None and rest.strip():
        header, rest = _header(rest.decode("utf-8", "replace"), table), b""
    if header is None:
        raise Unreadable("is empty; land it with a first line of column names")
    if rest.strip():
        yield rest, line, header


def encoding_of(path: Path) -> str:
    """The encoding that a text file is read in, fit to write it again; UTF-8 where the file is no text."""
    try:
        encoding, _ = _encoding(path)
    except (Unreadable, OSError):
        return "utf-8"
    return "utf-8" if encoding == "utf-8-sig" else encoding


def decimal_comma(path: Path) -> bool:
    """Whether numbers in the file may carry a decimal comma: only where the semicolon separates fields."""
    if path.name.lower().endswith(".parquet"):
        return False
    try:
        encoding, _ = _encoding(path)
        with _text(path, encoding) as lines:
            return delimiter_of(next(iter(lines), "")) == ";"
    except (Unreadable, OSError, EOFError, UnicodeError):
        return False


# --- CSV ---------------------------------------------------------------------------------------------------------------


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _blocks_of(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as handle:
            while block := handle.read(_BLOCK):
                yield block
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise Unreadable(f"cannot be read ({_plain(error)}); land it again whole") from error
    except Exception as error:  # zlib.error has no public base
        if type(error).__name__ != "error":
            raise
        raise Unreadable(f"is not a whole gzip file ({_plain(error)}); land it again whole") from error


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class _Look:
    """What a first pass over the bytes shows."""

    quotes: bool
    carriage_returns_only: bool
    empty: bool


def _encoding(path: Path) -> tuple[str, _Look]:
    """UTF-8 with or without BOM, UTF-16 with BOM, else GB18030 (what a Chinese spreadsheet exports)."""
    candidates = {
        "utf-8-sig": codecs.getincrementaldecoder("utf-8-sig")(),
        "gb18030": codecs.getincrementaldecoder("gb18030")(),
    }
    quotes = newline = carriage = some = False
    start = b""
    for block in _blocks_of(path):
        if not some:
            start = block[:4]
            if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16", _Look(True, False, False)
        some = True
        quotes = quotes or b'"' in block
        newline = newline or b"\n" in block
        carriage = carriage or b"\r" in block
        for name, decoder in list(candidates.items()):
            if name == "gb18030" and "utf-8-sig" in candidates and block.isascii():
                continue
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                del candidates[name]
        if not candidates:
            raise Unreadable("is neither UTF-8 nor GB18030 text; save it as CSV UTF-8")
    # A file torn in the middle of a character is still text up to there; its last line will not hold.
    return next(iter(candidates)), _Look(quotes, carriage and not newline, not some)


def _text(path: Path, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(_open(path), encoding=encoding, errors="replace", newline="\n")


def delimiter_of(line: str) -> str:
    """What separates the fields of a first line: comma, semicolon or tab."""
    counts = {mark: line.count(mark) for mark in (",", ";", "\t")}
    return max(counts, key=lambda mark: counts[mark])


def _header(line: str, table: Table) -> Header:
    delimiter = delimiter_of(line)
    fields = _fields(line.rstrip("\r\n"), delimiter)
    if fields is None:
        raise Unreadable("has a first line that cannot be split into column names; end lines with a line feed")
    names = tuple(name.strip().strip("\ufeff").lower() for name in fields)
    check_header(names, table)
    return Header(names, delimiter)


def _fields(line: str, delimiter: str) -> list[str] | None:
    """One line split by itself; None if the csv module cannot."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return None


def check_header(names: tuple[str, ...], table: Table) -> None:
    """Raises Unreadable if required columns are missing or a column of the contract is there twice."""
    missing = [c.name for c in table.columns if c.required and c.name not in names]
    if missing:
        found = ", ".join(name[:40] for name in names[:20]) or "nothing"
        raise Unreadable(f"has no column {missing[0]}; found {found}; name the columns in the first line")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise Unreadable(f"has the column {twice[0]} twice; keep one")


def _kept(names: tuple[str, ...], table: Table) -> list[str]:
    known = {column.name for column in table.columns}
    return [name for name in names if name and (name in known or table.extra_columns)]


def _csv_blocks(path: Path, table: Table) -> Iterator[pl.DataFrame]:
    encoding, look = _encoding(path)
    if look.empty:
        raise Unreadable("is empty; land it with a first line of column names")
    if look.quotes or look.carriage_returns_only:
        yield from _slow(path, table, encoding)
    else:
        yield from _fast(path, table, encoding)


def _fast(path: Path, table: Table, encoding: str) -> Iterator[pl.DataFrame]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    header: Header | None = None
    rest, line = "", 0
    blocks = _blocks_of(path)
    while True:
        block = next(blocks, None)
        text = rest + decoder.decode(block or b"", final=block is None)
        lines = text.split("\n")
        rest = "" if block is None else lines.pop()
        if header is None:
            while lines and not lines[0].strip():
                lines.pop(0)
                line += 1
            if lines:
                header = _header(lines.pop(0), table)
                line += 1
            elif block is None:
                raise Unreadable("is empty; land it with a first line of column names")
        if lines and header is not None:
            frame = _split(pl.Series(RAW, lines, dtype=pl.String), line + 1, header, table)
            line += len(lines)
            if frame.height:
                yield frame
        if block is None:
            return


def _split(lines: pl.Series, first: int, header: Header, table: Table) -> pl.DataFrame:
    n = len(header.names)
    frame = pl.DataFrame([lines.str.strip_chars_end("\r")]).with_columns(
        pl.int_range(first, first + lines.len(), dtype=pl.Int64).alias(LINE)
    )
    frame = frame.filter(pl.col(RAW).str.strip_chars() != "")
    fields = pl.col(RAW).str.count_matches(header.delimiter, literal=True) + 1
    frame = frame.with_columns(fields.alias("__n"), pl.col(RAW).str.split_exact(header.delimiter, n - 1).alias("__f"))
    # Empty fields beyond the header are what spreadsheets leave behind; anything else there is a broken row.
    surplus = pl.col("__n") > n
    if frame.select(surplus.any()).item():
        trailing = (
            pl.col(RAW).str.strip_chars_end(header.delimiter + " ").str.count_matches(header.delimiter, literal=True)
            + 1
        )
        frame = frame.with_columns(pl.when(surplus & (trailing <= n)).then(n).otherwise(pl.col("__n")).alias("__n"))
    broken = (
        pl.when(pl.col("__n") != n)
        .then(pl.format("has {} fields where the header has {}", pl.col("__n"), pl.lit(n)))
        .when(pl.col(RAW).str.contains("\0", literal=True))
        .then(pl.lit("holds a NUL character"))
        .when(pl.col(RAW).str.contains("\ufffd", literal=True))
        .then(pl.lit("holds bytes that are no text"))
    )
    kept = _kept(header.names, table)
    return frame.select(
        LINE,
        RAW,
        broken.alias(BROKEN),
        *[pl.col("__f").struct.field(f"field_{header.names.index(name)}").alias(name) for name in kept],
    )


def _slow(path: Path, table: Table, encoding: str) -> Iterator[pl.DataFrame]:
    try:
        with _open(path) as handle:
            # newline="" leaves line ends to the csv module, which keeps those inside quotes.
            reader = _Rows(io.TextIOWrapper(handle, encoding=encoding, errors="replace", newline=""))
            header = None
            for line in reader.lines():
                if line.strip():
                    header = _header(line, table)
                    break
            if header is None:
                raise Unreadable("is empty; land it with a first line of column names")
            rows: list[tuple[int, str, str | None, list[str]]] = []
            for row in reader.rows(header):
                rows.append(row)
                if len(rows) >= _SLOW_ROWS:
                    yield _rows_frame(rows, header, table)
                    rows = []
            if rows:
                yield _rows_frame(rows, header, table)
    except (OSError, EOFError, gzip.BadGzipFile, UnicodeError) as error:
        raise Unreadable(f"cannot be read ({_plain(error)}); land it again whole") from error


class _Rows:
    """Rows of quoted text; a quote that is never closed costs its own line, not the rest of the file."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._number = 0
        self._taken: list[str] = []

    def lines(self) -> Iterator[str]:
        for line in self._text:
            self._number += 1
            self._taken.append(line)
            yield line

    def rows(self, header: Header) -> Iterator[tuple[int, str, str | None, list[str]]]:
        n = len(header.names)
        source = self.lines()
        self._taken = []
        while True:
            start = self._number + 1
            try:
                fields = next(csv.reader(source, delimiter=header.delimiter), None)
            except csv.Error:
                fields = []
            taken, self._taken = self._taken, []
            if fields is None and not taken:
                return
            if len(taken) > 1 and (fields is None or len(_trimmed(fields, n)) != n):
                for offset, line in enumerate(taken):
                    if line.count('"') % 2:
                        yield start + offset, line.rstrip("\r\n"), "has a quote that is never closed", [""] * n
                    else:
                        alone = _fields(line.rstrip("\r\n"), header.delimiter)
                        yield from self._row(start + offset, line, alone or [], n)
            else:
                yield from self._row(start, "".join(taken), fields or [], n)

    @staticmethod
    def _row(line: int, raw: str, fields: list[str], n: int) -> Iterator[tuple[int, str, str | None, list[str]]]:
        raw = raw.rstrip("\r\n")
        if not raw.strip():
            return
        fields = _trimmed(fields, n)
        broken = None
        if len(fields) != n:
            broken = f"has {len(fields)} fields where the header has {n}"
        elif "\0" in raw:
            broken = "holds a NUL character"
        elif "\ufffd" in raw:
            broken = "holds bytes that are no text"
        yield line, raw, broken, (fields + [""] * n)[:n]


def _trimmed(fields: list[str], n: int) -> list[str]:
    while len(fields) > n and not fields[-1].strip():
        fields = fields[:-1]
    return fields


def _rows_frame(rows: list[tuple[int, str, str | None, list[str]]], header: Header, table: Table) -> pl.DataFrame:
    lines, raws, broken, fields = zip(*rows, strict=True)
    columns = list(zip(*fields, strict=True))
    kept = {name: list(columns[header.names.index(name)]) for name in _kept(header.names, table)}
    return pl.DataFrame(
        {LINE: list(lines), RAW: list(raws), BROKEN: list(broken), **kept},
        schema={LINE: pl.Int64, RAW: pl.String, BROKEN: pl.String, **dict.fromkeys(kept, pl.String)},
    )


# --- Parquet -----------------------------------------------------------------------------------------------------------


def _parquet_blocks(path: Path, table: Table) -> Iterator[pl.DataFrame]:
    for batch, names, line in _parquet_batches(path, table):
        lines = pl.int_range(line, line + batch.num_rows, dtype=pl.Int64, eager=True)
        try:
            frame = _with_lines(_as_text(batch, names, _kept(names, table)), lines)
        except (pa.ArrowException, ValueError, pl.exceptions.PolarsError) as error:
            raise Unreadable(f"is not a readable Parquet file ({_plain(error)[:120]}); write it again") from error
        yield frame


def _with_lines(frame: pl.DataFrame, lines: pl.Series) -> pl.DataFrame:
    return frame.with_columns(
        lines.alias(LINE),
        pl.concat_str(pl.all().fill_null(""), separator=",").alias(RAW) if frame.width else pl.lit("").alias(RAW),
        pl.lit(None, pl.String).alias(BROKEN),
    )


def _parquet_batches(path: Path, table: Table) -> Iterator[tuple[pa.RecordBatch, tuple[str, ...], int]]:
    """Batches of rows, the column names, and the number of the first row."""
    try:
        with pq.ParquetFile(path) as file:
            names = tuple(str(name).strip().lower() for name in file.schema_arrow.names)
            check_header(names, table)
            line = 1
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield batch, names, line
                line += batch.num_rows
    except Unreadable:
        raise
    except (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise Unreadable(f"is not a readable Parquet file ({_plain(error)[:120]}); write it again") from error


def _as_text(batch: pa.RecordBatch, names: tuple[str, ...], kept: list[str]) -> pl.DataFrame:
    columns = []
    for name in kept:
        array = batch.column(names.index(name))
        series = pl.Series(name, pl.from_arrow(array))
        if series.dtype == pl.Boolean:
            text = series.cast(pl.Int8).cast(pl.String)
        elif series.dtype.is_float():
            # An id that a data frame turned into a float loses the ".0" again; a fraction keeps all its digits.
            whole = series.is_finite() & (series == series.round()) & (series.abs() < 2**53)
            text = pl.select(
                pl.when(pl.lit(whole))
                .then(pl.lit(series).cast(pl.Int64, strict=False).cast(pl.String))
                .when(pl.lit(series).is_nan())
                .then(None)
                .otherwise(pl.lit(series).cast(pl.String))
                .alias(name)
            ).to_series()
        elif isinstance(series.dtype, pl.Datetime):
            zone = series.dtype.time_zone
            plain = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zone else series
            text = plain.dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
        elif series.dtype == pl.Binary:
            text = series.cast(pl.String, strict=False)
        elif series.dtype.is_nested():
            raise Unreadable(f"has nested values in column {name}; land plain columns")
        else:
            text = series.cast(pl.String)
        columns.append(text.alias(name))
    return pl.DataFrame(columns)
