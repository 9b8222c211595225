"""From roll-ups of telemetry to the few alerts a shift leader reads: what was known, what an alert puts at risk, which come first.

What is unusual is judged in `equipment.anomalies`; here it gets an owner, a price and a place in the list. The state of all alerts
is kept with the plans of the day, so that an alert keeps its name and age, and those beyond the list are not forgotten.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from npq_assets.contracts import LANDING
from npq_assets.equipment.anomalies import ALERTS, AnomalyParams, alert_id, watch
from npq_assets.errors import Unavailable
from npq_assets.evaluation.ledger import decision_id
from npq_assets.ingestion.days import DayPlaces, waiting_rows
from npq_assets.ingestion.reader import RAW
from npq_assets.ingestion.rules import CLOCK, REASON
from npq_assets.ingestion.store import Places, Registry
from npq_assets.manufacturing.inputs import plan_folder
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_json, write_parquet
from npq_assets.version import code_version

TELEMETRY = LANDING["manufacturing.telemetry"]
UNKNOWN, AHEAD, OTHERS = "unknown_machine", "clock_ahead", "others"
# Files of so many days say whose clock is ahead now.
ARRIVED_DAYS = 2
# Alerts of so many days say how often one was right; an earlier list older than that is not followed any more.
EVIDENCE_DAYS, FOLLOWED_DAYS = 90, 30
FAILURE_DAYS = 180
AHEAD_DAYS = 7
# What is believed of an alert before there is evidence: one in five announces a failure (a Beta prior of five alerts).
PRIOR_RIGHT, PRIOR_ALERTS = 1.0, 5.0
# Standstill after a failure where no component says how long it takes (minutes).
USUAL_MINUTES = 240.0
_HOURS: dict[str, Any] = {
    "machine_id": pl.String, "sensor": pl.String, "hour_start": pl.Datetime("us", "UTC"), "value": pl.Float64,
    "lowest": pl.Float64, "highest": pl.Float64, "readings": pl.Int64, "delay_minutes": pl.Float64,
}  # fmt: skip
_FIRST = {
    "level": "look at",
    "stuck": "check the sensor",
    "silent": "check the connection of",
    "clock": "set the clock of",
    AHEAD: "set the clock of",
}


@dataclass(frozen=True)
class MonitoringInputs:
    """What was known when the day opened.

    Attributes:
        as_of: The day.
        since: Begin of what is new: until then alerts were judged before.
        hours: Sensors by hour of the weeks before.
        machines: machine_id, line, cost_per_minute.
        costs: component, planned_cost, failure_cost, planned_minutes, failure_minutes.
        failures: machine_id, component, at: replacements after a failure.
        unknown: machine_id, readings, first_at, last_at of readings that wait for their machine.
        ahead: The same of readings that were quarantined for their time in the last days, by when their files came.
        before: State of an earlier day's alerts; None if there is none to follow.
        shown: Alerts in the list at most.
        snapshot: Hash of all of these.
        recorded_since: When the record of readings and replacements begins; None if unknown.
    """

    as_of: date
    since: datetime
    hours: pl.DataFrame
    machines: pl.DataFrame
    costs: pl.DataFrame
    failures: pl.DataFrame
    unknown: pl.DataFrame
    ahead: pl.DataFrame
    before: pl.DataFrame | None
    shown: int
    snapshot: str
    recorded_since: datetime | None = None

    @property
    def until(self) -> datetime:
        """The opening of the day."""
        return datetime.combine(self.as_of, time(0), UTC)


@dataclass(frozen=True)
class Monitoring:
    """A day's alerts.

    Attributes:
        state: All alerts that are open, and those that closed in the last weeks: the columns of `anomalies.ALERTS` and
            money_at_risk, owner, action, expected_minutes.
        rows: The list: the columns of the decision table.
        facts: open, closed, opened, money_at_risk, right (share of earlier alerts that a failure followed), evidence.
    """

    state: pl.DataFrame
    rows: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def read_monitoring(home: Home, as_of: date, params: AnomalyParams | None = None) -> MonitoringInputs:
    """What monitoring may use as of a day.

    Raises:
        Unavailable: No telemetry was read before the day.
    """
    params = params or AnomalyParams()
    opened = datetime.combine(as_of, time(0), UTC)
    back = params.daily_window_days + params.guard_days + params.replay_days + 1
    place = home.mart("manufacturing", "sensor_hour")
    hours = pl.DataFrame(schema=_HOURS)
    if place.exists():
        moment = pl.col("hour_start").dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        hours = (
            pl.scan_parquet(place)
            .with_columns(moment.alias("hour_start"))
            .filter((moment < opened) & (moment >= opened - timedelta(days=back)))
            .select([pl.col(name).cast(kind) for name, kind in _HOURS.items()])
            # Means that the database took in another order differ in their last bits; the same rows must give the same alerts.
            .with_columns(pl.col("value").round_sig_figs(9))
            .sort("machine_id", "sensor", "hour_start")
            .collect()
        )
    machines = (
        pl.read_parquet(home.mart("manufacturing", "machines"))
        if home.mart("manufacturing", "machines").exists()
        else None
    )
    names = machines["machine_id"].to_list() if machines is not None else []
    unknown, ahead = _unknown(home, opened), _ahead(home, opened, names)
    if machines is None or (hours.is_empty() and unknown.is_empty() and ahead.is_empty()):
        raise Unavailable(f"no telemetry before {as_of}; land manufacturing.telemetry")
    before, since = _before(home, as_of, params)
    machines = machines.select("machine_id", "line", "cost_per_minute").sort("machine_id")
    costs, failures = _costs(home), _failures(home, opened)
    recorded = _recorded_since(home, opened)
    snapshot = fingerprint(
        hours, machines, costs, failures, unknown, ahead, before if before is not None else "", str(since),
        home.settings.alerts_shown, code_version(), repr(params), str(recorded),
    )  # fmt: skip
    return MonitoringInputs(
        as_of,
        since,
        hours,
        machines,
        costs,
        failures,
        unknown,
        ahead,
        before,
        home.settings.alerts_shown,
        snapshot,
        recorded,
    )


def _unknown(home: Home, opened: datetime) -> pl.DataFrame:
    rows = waiting_rows(DayPlaces(TELEMETRY, home.raw, home.quarantine))
    return (
        rows.filter(pl.col("measured_at") < opened)
        .group_by("machine_id")
        .agg(
            pl.len().cast(pl.Int64).alias("readings"),
            pl.col("measured_at").min().alias("first_at"),
            pl.col("measured_at").max().alias("last_at"),
        )
        .sort("machine_id")
    )


def _ahead(home: Home, opened: datetime, machines: list[str]) -> pl.DataFrame:
    """machine_id, readings, first_at, last_at of rows quarantined for their time, in files of the last days.

    Such a row has no time that could be believed: it counts from when its file came. A row names its machine in some field.
    """
    registry = Registry.read(Places(home.landing, home.raw, home.quarantine).registry(TELEMETRY))
    came: dict[str, datetime] = {}
    for known in registry.seen.values():
        _, moment, digest = known.split(":")
        at = datetime.fromtimestamp(int(moment) / 1e9, UTC)
        came[digest] = min(at, came.get(digest, at))
    schema = pl.Schema({"machine_id": pl.String(), "came": pl.Datetime("us", "UTC")})
    frames = [pl.DataFrame(schema=schema)]
    for content in registry.contents:
        at = came.get(content.hash, opened)
        late = any(CLOCK in reason for reason in content.reasons)
        if not late or not opened - timedelta(days=ARRIVED_DAYS) <= at < opened:
            continue
        place = home.raw / ".parts" / TELEMETRY.domain / TELEMETRY.name / f"{content.hash}.bad.parquet"
        rows = pl.read_parquet(place).filter(pl.col(REASON).str.contains(CLOCK, literal=True))
        fields = rows.select(
            pl.col(RAW).str.replace_all(r'[;\t"]', ",").str.split(",").list.eval(pl.element().str.strip_chars())
        )
        named = fields.select(pl.col(RAW).list.set_intersection(machines).list.first().alias("machine_id")).drop_nulls()
        frames.append(named.with_columns(pl.lit(at).dt.cast_time_unit("us").alias("came")).cast(schema))
    return (
        pl.concat(frames)
        .group_by("machine_id")
        .agg(
            pl.len().cast(pl.Int64).alias("readings"),
            pl.col("came").min().alias("first_at"),
            pl.col("came").max().alias("last_at"),
        )
        .sort("machine_id")
    )


def _before(home: Home, as_of: date, params: AnomalyParams) -> tuple[pl.DataFrame | None, datetime]:
    """The state of the latest earlier day that can be followed, and the opening of that day."""
    for back in range(1, FOLLOWED_DAYS + 1):
        day = as_of - timedelta(days=back)
        if (place := state_place(home, day)).exists():
            return pl.read_parquet(place, hive_partitioning=False), datetime.combine(day, time(0), UTC)
    return None, datetime.combine(as_of - timedelta(days=params.replay_days), time(0), UTC)


def _raw(home: Home, table: str) -> pl.DataFrame:
    place = home.raw_table("manufacturing", table)
    return pl.read_parquet(place) if place.exists() else LANDING[f"manufacturing.{table}"].empty()


def _costs(home: Home) -> pl.DataFrame:
    return (
        _raw(home, "component_costs")
        .select("component", "planned_cost", "failure_cost", "planned_minutes", "failure_minutes")
        .sort("component")
    )


def _failures(home: Home, opened: datetime) -> pl.DataFrame:
    rows = _raw(home, "component_replacements").filter(
        (pl.col("cause") == "failure") & (pl.col("replaced_at") < opened)
    )
    return rows.select("machine_id", "component", pl.col("replaced_at").alias("at")).sort(
        "at", "machine_id", "component"
    )


def _recorded_since(home: Home, opened: datetime) -> datetime | None:
    """The first reading or replacement known before a moment: from then on a failure would have been on record."""
    replaced = _raw(home, "component_replacements")["replaced_at"].min()
    place, first = home.mart("manufacturing", "sensor_hour"), None
    if place.exists():
        moment = pl.col("hour_start").dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        first = pl.scan_parquet(place).select(moment.min()).collect().item()
    known = [at for at in (replaced, first) if isinstance(at, datetime) and at < opened]
    return min(known, default=None)


# --- Alerts and their price ----------------------------------------------------------------------------------------------


def monitor(inputs: MonitoringInputs, params: AnomalyParams | None = None) -> Monitoring:
    """The day's alerts, those first that put most money at risk.

    An alert on a machine's level puts at risk what a failure costs more than a planned replacement, standstill at the machine's
    cost a minute included, times the share of earlier such alerts that a failure followed within a week. Where a sensor, a clock
    or a whole machine cannot be believed, failures of a week are not seen coming: the plant's rate of failures, for the share of
    the machine's sensors concerned. Without landed costs all risks are 0, and the score decides.
    """
    params = params or AnomalyParams()
    alerts = watch(inputs.hours, inputs.since, inputs.until, _columns(inputs.before), params)
    closed_before = _columns(inputs.before).filter(pl.col("closed_at").is_not_null())
    state = pl.concat([alerts, closed_before, _put_aside_alerts(inputs)])
    horizon = inputs.until - timedelta(days=EVIDENCE_DAYS)
    state = state.filter(pl.col("closed_at").is_null() | (pl.col("closed_at") >= horizon))
    right, evidence = _right(state, inputs)
    priced = _priced(state.sort("opened_at", "alert_id"), inputs, right)
    is_open = priced.filter(pl.col("closed_at").is_null()).sort(
        ["money_at_risk", "score", "alert_id"], descending=[True, True, False]
    )
    rows = _rows(is_open, inputs)
    facts = {
        "open": is_open.height,
        "opened": int((is_open["opened_at"] >= inputs.since).sum()),
        "closed": int((alerts["closed_at"].is_not_null()).sum()),
        "money_at_risk": float(is_open["money_at_risk"].sum()),
        "right": right,
        "evidence": evidence,
        "shown": min(is_open.height, inputs.shown),
    }
    return Monitoring(priced, rows, facts)


def _columns(state: pl.DataFrame | None) -> pl.DataFrame:
    if state is None:
        return pl.DataFrame(schema=ALERTS)
    # Readings that were put aside are counted anew each day.
    return state.select(list(ALERTS)).filter(~pl.col("kind").is_in([UNKNOWN, AHEAD]))


def _put_aside_alerts(inputs: MonitoringInputs) -> pl.DataFrame:
    """Readings in quarantine: of a machine that nobody knows, or of a time that cannot be. Nothing of them was lost."""
    before = (
        {} if inputs.before is None else {(r["kind"], r["machine_id"]): r for r in inputs.before.iter_rows(named=True)}
    )
    rows = [
        (kind, row, words)
        for kind, frame, words in (
            (UNKNOWN, inputs.unknown, "of a machine that master data do not know wait in quarantine"),
            (AHEAD, inputs.ahead, "with a time that cannot be were quarantined in the last days"),
        )
        for row in frame.iter_rows(named=True)
    ]
    found = []
    for kind, row, words in rows:
        earlier = before.get((kind, row["machine_id"]))
        opened = min(row["first_at"], earlier["opened_at"]) if earlier else row["first_at"]
        found.append(
            {
                "alert_id": earlier["alert_id"] if earlier else alert_id(kind, row["machine_id"], opened),
                "kind": kind,
                "machine_id": row["machine_id"],
                "sensors": "",
                "opened_at": opened,
                "last_at": row["last_at"],
                "closed_at": None,
                "score": 0.0,
                "reason": f"{row['readings']:,} readings {words}",
            }
        )
    return pl.DataFrame(found, schema=ALERTS, orient="row")


def _right(state: pl.DataFrame, inputs: MonitoringInputs) -> tuple[float, int]:
    """Share of level alerts that a failure of the machine followed within a week, drawn to the prior; and how many there were."""
    over = inputs.until - timedelta(days=AHEAD_DAYS)
    past = state.filter((pl.col("kind") == "level") & (pl.col("opened_at") < over))
    after = pl.col("at") - pl.col("opened_at")
    hits = (
        past.join(inputs.failures.select("machine_id", "at"), on="machine_id")
        .filter((after > timedelta(0)) & (after <= timedelta(days=AHEAD_DAYS)))
        .select("alert_id")
        .n_unique()
    )
    return (PRIOR_RIGHT + hits) / (PRIOR_ALERTS + past.height), past.height


def _priced(state: pl.DataFrame, inputs: MonitoringInputs, right: float) -> pl.DataFrame:
    machines = {row["machine_id"]: row for row in inputs.machines.iter_rows(named=True)}
    sensors = dict(inputs.hours.group_by("machine_id").agg(pl.col("sensor").n_unique()).iter_rows())
    days = min(FAILURE_DAYS, _days_of_record(inputs))
    recent = inputs.failures.filter(pl.col("at") >= inputs.until - timedelta(days=FAILURE_DAYS))
    unseen = AHEAD_DAYS * recent.height / (days * max(1, inputs.machines.height))
    usual_cost = float(inputs.machines["cost_per_minute"].to_numpy().mean()) if inputs.machines.height else 0.0
    found = []
    for row in state.iter_rows(named=True):
        machine = machines.get(row["machine_id"])
        minute = float(machine["cost_per_minute"]) if machine else usual_cost
        cost, minutes = _failure_of(row["machine_id"], recent, inputs.costs, minute)
        concerned = (
            len(row["sensors"].split(", ")) / max(1, sensors.get(row["machine_id"], 1)) if row["sensors"] else 1.0
        )
        chance = right if row["kind"] == "level" else min(1.0, unseen) * min(1.0, concerned)
        line = f", line {machine['line']}" if machine else ""
        owner = {"level": "maintenance", UNKNOWN: "master data"}.get(row["kind"], "instrumentation")
        found.append(
            {
                "money_at_risk": round(chance * cost, 4),
                "expected_minutes": round(chance * minutes, 2),
                "owner": f"{owner}{line}",
                "action": _action(row),
            }
        )
    schema: dict[str, Any] = {
        "money_at_risk": pl.Float64, "expected_minutes": pl.Float64, "owner": pl.String, "action": pl.String
    }  # fmt: skip
    return pl.concat([state, pl.DataFrame(found, schema=schema, orient="row")], how="horizontal")


def _days_of_record(inputs: MonitoringInputs) -> int:
    """Days in which failures were recorded: not since the first failure only, or one would look like one a day. A week at least."""
    moments = [at for at in (inputs.failures["at"].min(), inputs.recorded_since) if isinstance(at, datetime)]
    return max(AHEAD_DAYS, (inputs.until - min(moments)).days + 1) if moments else FAILURE_DAYS


def _failure_of(machine: str, failures: pl.DataFrame, costs: pl.DataFrame, minute: float) -> tuple[float, float]:
    """What a failure costs more than a planned replacement (money), and its standstill (minutes); by what fails there."""
    own = failures.filter(pl.col("machine_id") == machine).group_by("component").len()
    rows = costs.join(own, on="component", how="left").with_columns(pl.col("len").fill_null(0) + 0.5)
    if rows.is_empty():
        return USUAL_MINUTES * minute, USUAL_MINUTES
    failed, planned = pl.col("failure_minutes").fill_null(USUAL_MINUTES), pl.col("planned_minutes").fill_null(0.0)
    more = pl.max_horizontal(pl.lit(0.0), pl.col("failure_cost") - pl.col("planned_cost") + (failed - planned) * minute)
    weight = pl.col("len") / pl.col("len").sum()
    [(cost, minutes)] = rows.select((more * weight).sum(), (failed * weight).sum()).rows()
    return float(cost), float(minutes)


def _action(row: dict[str, Any]) -> str:
    if row["kind"] == UNKNOWN:
        return f"land {row['machine_id']} in manufacturing.machines, or stop what sends under that name"
    what = (
        row["machine_id"]
        if row["kind"] == "clock" or not row["sensors"]
        else f"{row['sensors']} of {row['machine_id']}"
    )
    return f"{_FIRST[row['kind']]} {what}"


def _rows(is_open: pl.DataFrame, inputs: MonitoringInputs) -> pl.DataFrame:
    """The list: the first ones, and one row that sums up the rest."""
    first = is_open.head(inputs.shown)
    rest = is_open.tail(max(0, is_open.height - inputs.shown))
    age = (pl.lit(inputs.until) - pl.col("opened_at")).dt.total_minutes() / 60
    rows = first.select(
        "alert_id", "kind", "machine_id", pl.col("sensors").replace("", None), "opened_at", age.round(2).alias("age_hours"),
        "owner", "score", "money_at_risk", "expected_minutes", "action", "reason",
    )  # fmt: skip
    if rest.height:
        kinds = ", ".join(
            f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(rest["kind"].value_counts().rows())
        )
        rows = pl.concat(
            [
                rows,
                pl.DataFrame(
                    [
                        {
                            "alert_id": alert_id(OTHERS, "", inputs.until),
                            "kind": OTHERS,
                            "machine_id": "several",
                            "sensors": None,
                            "opened_at": rest["opened_at"].min(),
                            "age_hours": None,
                            "owner": "shift leader",
                            "score": rest["score"].max(),
                            "money_at_risk": rest["money_at_risk"].sum(),
                            "expected_minutes": rest["expected_minutes"].sum(),
                            "action": "look at these when the others are dealt with",
                            "reason": f"{rest.height} further alerts: {kinds}",
                        }
                    ],
                    schema=rows.schema,
                    orient="row",
                ).with_columns(
                    ((pl.lit(inputs.until) - pl.col("opened_at")).dt.total_minutes() / 60).round(2).alias("age_hours")
                ),
            ]
        )
    ids = [
        decision_id(inputs.as_of, "manufacturing", "machine_alerts", (key,), inputs.snapshot)
        for key in rows["alert_id"]
    ]
    return rows.with_columns(
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
    )


# --- Kept between days ---------------------------------------------------------------------------------------------------


def state_place(home: Home, as_of: date) -> Path:
    """The state of a day's alerts."""
    return plan_folder(home, as_of) / "machine_alerts_state.parquet"


def save_monitoring(home: Home, as_of: date, found: Monitoring, inputs_hash: str) -> None:
    """Writes list and state; the JSON that vouches for them last."""
    folder = plan_folder(home, as_of)
    write_parquet(found.rows, folder / "machine_alerts.parquet")
    write_parquet(found.state, state_place(home, as_of))
    write_json({"inputs": inputs_hash, **found.facts}, folder / "machine_alerts.json")


def save_skipped(home: Home, as_of: date, reason: str) -> None:
    """Notes why nothing was judged, and withdraws what was judged of that day before."""
    folder = plan_folder(home, as_of)
    for name in ("machine_alerts.parquet", "machine_alerts_state.parquet"):
        (folder / name).unlink(missing_ok=True)
    write_json({"inputs": "", "skipped": reason}, folder / "machine_alerts.json")


def load_monitoring(home: Home, as_of: date, inputs_hash: str | None = None) -> Monitoring | None:
    """A day's alerts as stored; None if there are none, or none of these inputs. A day that was skipped has no rows."""
    folder = plan_folder(home, as_of)
    place = folder / "machine_alerts.json"
    if not place.exists():
        return None
    facts = json.loads(place.read_text())
    if inputs_hash is not None and facts["inputs"] != inputs_hash:
        return None
    if "skipped" in facts:
        return Monitoring(pl.DataFrame(), pl.DataFrame(), facts)
    rows, state = (
        pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False)
        for name in ("machine_alerts", "machine_alerts_state")
    )
    return Monitoring(state, rows, facts)


# --- What must hold ------------------------------------------------------------------------------------------------------

CHECKS = ("few_enough", "nothing_lost", "money_adds_up")


def judge_monitoring(found: Monitoring, inputs: MonitoringInputs) -> list[tuple[str, bool, str]]:
    """Name, verdict and words of each check on a day's alerts."""
    is_open = found.state.filter(pl.col("closed_at").is_null())
    few = found.rows.height <= inputs.shown + 1 and found.rows["alert_id"].n_unique() == found.rows.height
    lost = pl.DataFrame(schema={"alert_id": pl.String})
    if inputs.before is not None:
        earlier = _columns(inputs.before).filter(pl.col("closed_at").is_null())
        lost = earlier.join(found.state.select("alert_id"), on="alert_id", how="anti").select("alert_id")
    missing = inputs.unknown.join(
        is_open.filter(pl.col("kind") == UNKNOWN).select("machine_id"), on="machine_id", how="anti"
    )
    listed, all_of_it = float(found.rows["money_at_risk"].sum()), float(is_open["money_at_risk"].sum())
    return [
        ("few_enough", few, f"{found.rows.height} rows for {is_open.height} alerts"),
        (
            "nothing_lost",
            lost.is_empty() and missing.is_empty(),
            "every alert of the day before is open, or has a moment at which it closed"
            if lost.is_empty()
            else f"{lost.height} alerts are gone, the first: {lost['alert_id'][0]}",
        ),
        (
            "money_adds_up",
            abs(listed - all_of_it) <= 1e-6 * (1 + all_of_it),
            f"{listed:,.2f} listed, {all_of_it:,.2f} in all",
        ),
    ]
