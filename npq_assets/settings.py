"""Where a company's files live and what may be set: the home folder and its `npq.toml`.

Every setting has a default; a home without `npq.toml` works.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Literal

from npq_assets.errors import NpqError

Period = Literal["day", "week"]


@dataclass(frozen=True)
class Settings:
    """What `<home>/npq.toml` may say.

    Attributes:
        period: `day` or `week`; None: what the dates of the sales show.
        currency: Printed beside money.
        scenarios: Demand scenarios per product for the optimizer.
        retrain_periods: A model is trained anew when this many periods have passed (on a fixed calendar, so that an
            as-of day always uses the same model).
        solver_seconds: Clock limit of one solve, behind the limits by work.
        threads: Threads for training and solving.
        seed: Seed of everything random.
        publish: Whether decisions are also handed to the outbox; a dry run unless true.
    """

    period: Period | None = None
    currency: str = ""
    scenarios: int = 200
    retrain_periods: int | None = None
    solver_seconds: float = 30.0
    threads: int = 2
    seed: int = 0
    publish: bool = False


@dataclass(frozen=True)
class Home:
    """The folder that holds one company: what landed, what was derived, what was decided.

    Attributes:
        root: The folder, absolute.
        settings: What its `npq.toml` says.
    """

    root: Path
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def at(cls, root: Path | str | None = None) -> Home:
        """The home at `root`, else at NPQ_HOME, else at ./.npq.

        Raises:
            NpqError: `npq.toml` cannot be read or names an unknown setting.
        """
        folder = Path(root or os.environ.get("NPQ_HOME") or ".npq").expanduser().resolve()
        return cls(folder, read_settings(folder / "npq.toml"))

    @property
    def landing(self) -> Path:
        """Where files land: `<domain>/<table>/<any name>`."""
        return self.root / "landing"

    @property
    def quarantine(self) -> Path:
        """Rows and files that broke the contract, with the reasons."""
        return self.root / "quarantine"

    @property
    def raw(self) -> Path:
        """Accepted rows, one Parquet file a table."""
        return self.root / "raw"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file that only dbt steps open."""
        return self.root / "warehouse" / "npq.duckdb"

    @property
    def lock(self) -> Path:
        """The file whose lock serializes runs on this home."""
        return self.root / ".lock"

    def raw_table(self, domain: str, table: str) -> Path:
        """Parquet file of an accepted table."""
        return self.raw / domain / f"{table}.parquet"

    def mart(self, domain: str, model: str) -> Path:
        """Parquet file of an exported mart."""
        return self.root / "marts" / domain / f"{model}.parquet"

    def forecasts(self, domain: str, as_of: date) -> Path:
        """Folder of a day's forecasts."""
        return self.root / "forecasts" / domain / f"as_of={as_of.isoformat()}"

    def models(self, domain: str) -> Path:
        """Folder of trained models, by version."""
        return self.root / "models" / domain

    def decisions(self, domain: str, table: str, as_of: date) -> Path:
        """Parquet file of a day's decisions."""
        return self.decision_folder(domain, table) / f"as_of={as_of.isoformat()}" / f"{table}.parquet"

    def decision_folder(self, domain: str, table: str) -> Path:
        """Folder of a decision table, with one sub-folder an as-of day."""
        return self.root / "decisions" / domain / table

    def report(self, as_of: date) -> Path:
        """The decision report of a day."""
        return self.root / "reports" / f"as_of={as_of.isoformat()}" / "report.html"


def read_settings(path: Path) -> Settings:
    """Reads `npq.toml`; defaults where it is absent.

    Raises:
        NpqError: The file is not TOML, or names or types are wrong.
    """
    if not path.exists():
        return Settings()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise NpqError(f"{path}: cannot be read as TOML ({error}); correct or remove it") from error
    known = {f.name: f for f in fields(Settings)}
    for name, value in content.items():
        if name not in known:
            raise NpqError(f"{path}: unknown setting {name!r}; known are {', '.join(sorted(known))}")
        _check(path, name, value)
    return Settings(**content)


def _check(path: Path, name: str, value: object) -> None:
    allowed: dict[str, tuple[type, ...]] = {
        "period": (str,),
        "currency": (str,),
        "scenarios": (int,),
        "retrain_periods": (int,),
        "solver_seconds": (int, float),
        "threads": (int,),
        "seed": (int,),
        "publish": (bool,),
    }
    right_type = isinstance(value, allowed[name]) and (name == "publish" or not isinstance(value, bool))
    if not right_type:
        raise NpqError(f"{path}: {name} = {value!r} has the wrong type; expected {allowed[name][0].__name__}")
    if name == "period" and value not in ("day", "week"):
        raise NpqError(f'{path}: period = {value!r}; expected "day" or "week"')
    if name in {"scenarios", "retrain_periods", "threads", "solver_seconds"} and not float(str(value)) > 0:
        raise NpqError(f"{path}: {name} = {value!r} must be above 0")
