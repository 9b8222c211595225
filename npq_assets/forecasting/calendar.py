"""Dates as consecutive integers: the period grid of a frequency (day, week, month, quarter), and its natural seasons.

Events and promotions do not belong here; they are covariates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from npq_assets.errors import NpqError

_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


@dataclass(frozen=True)
class Calendar:
    """A period grid.

    Attributes:
        unit: `D`, `W`, `M` or `Q`.
        anchor: Weekday (0 = Monday) of a week's date; for months and quarters 0 = first day, 1 = last day.
    """

    unit: str
    anchor: int = 0

    @classmethod
    def of(cls, freq: str, dates: pl.Series) -> Calendar:
        """The grid that `freq` names, anchored as `dates` show where `freq` leaves it open.

        Args:
            freq: `D`, `W`, `W-MON` … `W-SUN`, `M`, `MS`, `ME`, `Q`, `QS`, `QE`, or npq's `day`, `week`, `month`.
            dates: Dates of the history (pl.Date).

        Raises:
            NpqError: `freq` is unknown, or a date is not on the grid.
        """
        name = {"DAY": "D", "WEEK": "W", "MONTH": "M", "1D": "D", "1W": "W", "1MO": "M"}.get(freq.upper(), freq.upper())
        first = dates.min()
        if name == "D":
            calendar = cls("D")
        elif name == "W":
            calendar = cls("W", first.weekday() if isinstance(first, date) else 0)
        elif name.startswith("W-") and name[2:] in _WEEKDAYS:
            calendar = cls("W", _WEEKDAYS.index(name[2:]))
        elif name[:1] in {"M", "Q"} and name[1:].split("-")[0] in {"", "S", "E"}:
            end = name[1:2] == "E" or (name[1:2] != "S" and isinstance(first, date) and first.day != 1)
            calendar = cls(name[0], int(end))
        else:
            raise NpqError(f"freq {freq!r} is unknown; use D, W, W-MON … W-SUN, MS, ME, QS or QE")
        calendar.check(dates, freq)
        return calendar

    def check(self, dates: pl.Series, freq: str, what: str = "history") -> None:
        """Raises NpqError naming the first date that is not on the grid."""
        wrong = dates.filter(self.dates(self.index(dates)) != dates)
        if len(wrong):
            raise NpqError(f"{what}: ds {wrong[0]} does not fit freq {freq!r}; correct the dates or give their freq")

    def index(self, dates: pl.Series) -> np.ndarray:
        """Period numbers (int64) of dates."""
        if self.unit == "D":
            return dates.cast(pl.Int32).to_numpy().astype(np.int64)
        if self.unit == "W":
            return (dates.cast(pl.Int32).to_numpy().astype(np.int64) + _EPOCH_WEEKDAY - self.anchor) // 7
        months = (dates.dt.year().cast(pl.Int64) * 12 + dates.dt.month().cast(pl.Int64) - 1).to_numpy()
        return months if self.unit == "M" else months // 3

    def dates(self, index: np.ndarray) -> pl.Series:
        """Dates (pl.Date) of period numbers."""
        index = np.asarray(index, np.int64)
        if self.unit == "D":
            days = index
        elif self.unit == "W":
            days = index * 7 - _EPOCH_WEEKDAY + self.anchor
        else:
            step = 1 if self.unit == "M" else 3
            months = index * step + (step if self.anchor else 0)
            start = (months - 1970 * 12).astype("datetime64[M]").astype("datetime64[D]")
            days = start.astype(np.int64) - self.anchor
        return pl.Series("ds", days.astype(np.int32)).cast(pl.Date)

    @property
    def year(self) -> int:
        """Periods in a year that keep weekdays aligned."""
        return {"D": 364, "W": 52, "M": 12, "Q": 4}[self.unit]

    @property
    def week(self) -> int:
        """Periods in a week, or 0 when a period is no shorter than a week."""
        return 7 if self.unit == "D" else 0
