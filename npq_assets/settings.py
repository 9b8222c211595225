"""Where a company's files live and what may be set: the home folder and its `npq.toml`.

Every setting has a default; a home without `npq.toml` works.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal

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
        messages_per_week: Messages to a customer in any seven days at most.
        offer_budget: Money that a week's offers to customers may cost in all; None: only each offer's own budget.
        control_share: Share of the customers chosen for an offer who are kept as controls.
        stockout_defection: Share of the customers turned away at an empty shelf who do not come back: with the value of those
            who buy the product it enters the cost of a lost sale.
        first_response_hours: Hours within which a service request is promised a first answer.
        agent_cost_per_hour: Cost of a person answering requests (money per hour).
        answers_per_hour: Requests that one person answers in an hour.
        service_shifts: Hours (UTC) of the shifts in which requests are answered, as "08-16"; they may overlap, and "22-06" ends
            on the next day.
        service_most: People at most in a shift.
        smtp: `host:port` that messages are sent to; empty: they are written as files.
        smtp_tls: How the connection is encrypted: `starttls`, `tls` (from the first byte on, often port 465) or `none`.
        smtp_user: Name to log in with; the password is read from NPQ_SMTP_PASSWORD and stands in no file.
        smtp_ca: File of the certificate authority, if not one that the system knows.
        sender: Address that messages come from.
        crew_replacements: Components that the maintenance crew can replace a day; None for no limit.
        sourcing_shortage_cost: Cost of a unit, in the deliveries' unit, that no source can send to a site in a week (money).
        mqtt: `host:port` of the broker that telemetry is heard from and set-points go to; empty: none.
        mqtt_topic: First part of all topics.
        mqtt_user: Name to log in with; the password is read from NPQ_MQTT_PASSWORD and stands in no file.
        mqtt_tls: Whether the connection is encrypted.
        mqtt_ca: File of the certificate authority, if not one that the system knows.
        batch_rows: Readings after which `npq listen` lands what it heard.
        batch_seconds: Seconds after which it lands what it heard in any case.
        shift_hours: Hours (UTC) at which a shift begins, in order.
        alerts_shown: Alerts on machines in the list of a day at most; the rest is summed up.
    """

    period: Period | None = None
    currency: str = ""
    scenarios: int = 200
    retrain_periods: int | None = None
    solver_seconds: float = 30.0
    threads: int = 2
    seed: int = 0
    publish: bool = False
    messages_per_week: int = 2
    offer_budget: float | None = None
    control_share: float = 0.05
    stockout_defection: float = 0.002
    first_response_hours: float = 24.0
    agent_cost_per_hour: float = 25.0
    answers_per_hour: float = 6.0
    service_shifts: tuple[str, ...] = ("08-11", "11-14", "14-17", "17-20")
    service_most: int = 50
    smtp: str = ""
    smtp_tls: str = "none"
    smtp_user: str = ""
    smtp_ca: str = ""
    sender: str = "service@example.org"
    crew_replacements: int | None = None
    sourcing_shortage_cost: float = 50.0
    mqtt: str = ""
    mqtt_topic: str = "npq"
    mqtt_user: str = ""
    mqtt_tls: bool = False
    mqtt_ca: str = ""
    batch_rows: int = 50_000
    batch_seconds: float = 60.0
    shift_hours: tuple[int, ...] = (6, 14, 22)
    alerts_shown: int = 12


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
        """Accepted rows, a Parquet file (or a folder of them) a table."""
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
        """Parquet file of an accepted table; a folder of such files for one that is kept by day."""
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


_POSITIVE = {
    "scenarios",
    "retrain_periods",
    "threads",
    "solver_seconds",
    "first_response_hours",
    "agent_cost_per_hour",
    "answers_per_hour",
    "service_most",
    "batch_rows",
    "batch_seconds",
    "alerts_shown",
}


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
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    return Settings(**given)


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
        "messages_per_week": (int,),
        "offer_budget": (int, float),
        "control_share": (int, float),
        "stockout_defection": (int, float),
        "first_response_hours": (int, float),
        "agent_cost_per_hour": (int, float),
        "answers_per_hour": (int, float),
        "service_shifts": (list,),
        "service_most": (int,),
        "smtp": (str,),
        "smtp_tls": (str,),
        "smtp_user": (str,),
        "smtp_ca": (str,),
        "sender": (str,),
        "crew_replacements": (int,),
        "sourcing_shortage_cost": (int, float),
        "mqtt": (str,),
        "mqtt_topic": (str,),
        "mqtt_user": (str,),
        "mqtt_tls": (bool,),
        "mqtt_ca": (str,),
        "batch_rows": (int,),
        "batch_seconds": (int, float),
        "shift_hours": (list,),
        "alerts_shown": (int,),
    }
    right_type = isinstance(value, allowed[name]) and (bool in allowed[name] or not isinstance(value, bool))
    if not right_type:
        raise NpqError(f"{path}: {name} = {value!r} has the wrong type; expected {allowed[name][0].__name__}")
    if name == "period" and value not in ("day", "week"):
        raise NpqError(f'{path}: period = {value!r}; expected "day" or "week"')
    if name == "smtp_tls" and value not in ("starttls", "tls", "none"):
        raise NpqError(f'{path}: smtp_tls = {value!r}; expected "starttls", "tls" or "none"')
    if name in {"control_share", "stockout_defection"} and not 0 <= float(str(value)) <= 1:
        raise NpqError(f"{path}: {name} = {value!r} must lie between 0 and 1")
    if (
        name in {"messages_per_week", "offer_budget", "crew_replacements", "sourcing_shortage_cost"}
        and not float(str(value)) >= 0
    ):
        raise NpqError(f"{path}: {name} = {value!r} must not be below 0")
    if name in {"smtp", "mqtt"} and value and not str(value).rpartition(":")[2].isdigit():
        raise NpqError(f'{path}: {name} = {value!r}; expected "host:port"')
    if name == "mqtt_topic" and (not value or set(str(value)) & set("+#\0") or str(value).strip("/") != value):
        raise NpqError(f'{path}: mqtt_topic = {value!r}; expected plain levels such as "npq" or "plant/npq"')
    if name == "service_shifts":
        shifts = value if isinstance(value, list) else []
        if not shifts or len(set(map(str, shifts))) < len(shifts) or not all(_is_shift(shift) for shift in shifts):
            raise NpqError(f'{path}: service_shifts = {value!r}; expected hours such as ["08-16", "12-20", "22-06"]')
    if name == "shift_hours":
        hours = value if isinstance(value, list) else []
        whole = all(isinstance(hour, int) and not isinstance(hour, bool) and 0 <= hour < 24 for hour in hours)
        if not (hours and whole and sorted(set(hours)) == hours):
            raise NpqError(f"{path}: shift_hours = {value!r}; expected hours in order such as [6, 14, 22]")
    if name in _POSITIVE and not float(str(value)) > 0:
        raise NpqError(f"{path}: {name} = {value!r} must be above 0")


def _is_shift(shift: object) -> bool:
    begin, dash, end = str(shift).partition("-")
    two = all(len(hour) == 2 and hour.isascii() and hour.isdigit() for hour in (begin, end))
    return bool(isinstance(shift, str) and dash and two and begin != end and int(begin) < 24 and int(end) <= 24)
