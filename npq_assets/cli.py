"""The `npq` command: thin; every verb calls one function. Heavy imports happen in the verb that needs them."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from npq_assets.errors import NpqError, RunError
from npq_assets.settings import Home

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="npq: decisions with a price on them, from the raw files of an industrial company.",
)

HomeOption = Annotated[Path | None, typer.Option("--home", help="Home folder; else NPQ_HOME, else ./.npq.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
DomainOption = Annotated[str | None, typer.Option(help="Only this system: retail, manufacturing or logistics.")]


def main() -> None:
    """Runs the command; errors are one line on stderr, with exit code 1 (run failed) or 2 (unusable input)."""
    # Ingestion, SQL, training and solving share the cores; more threads than cores only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
    try:
        app()
    except RunError as error:
        _fail(error, 1)
    except NpqError as error:
        _fail(error, 2)


def _fail(error: Exception, code: int) -> None:
    print("npq: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(code)


def _say(line: str) -> None:
    print(line, flush=True)


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise NpqError(f"--as-of {text!r} is not a date; write YYYY-MM-DD") from None


def _domain(name: str | None) -> str:
    if name not in (None, "retail", "manufacturing", "logistics"):
        raise NpqError(f"--domain {name!r} is unknown; use retail, manufacturing or logistics")
    return name or "everything"


@app.command()
def demo(
    home: HomeOption = None,
    scale: Annotated[float, typer.Option(help="Size of the sample company.", min=0.01)] = 1.0,
    days: Annotated[int, typer.Option(help="Days of history.", min=60)] = 730,
    seed: SeedOption = 0,
) -> None:
    """Makes the sample company, runs the whole graph and prints what its decisions cost."""
    from npq_assets.demo import run_demo

    run_demo(Home.at(home), scale=scale, days=days, seed=seed, say=_say)


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder to write `<domain>/<table>/….csv` into.")],
    scale: Annotated[float, typer.Option(help="Size; 1 is the demo, 75 is 30,000 series.", min=0.01)] = 1.0,
    days: Annotated[int, typer.Option(help="Days of history.", min=30)] = 730,
    seed: SeedOption = 0,
) -> None:
    """Writes the sample company's landing folder."""
    from npq_assets.company.landing import write_sample

    summary = write_sample(out, scale=scale, days=days, seed=seed)
    _say(f"{summary.total_rows:,} rows of {len(summary.rows)} tables in {out}; decide as of {summary.as_of}")


@app.command()
def validate(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Reads the landing folder, changes nothing, and prints what would be accepted and what would not."""
    from npq_assets.ingestion import validate as validate_landing
    from npq_assets.ingestion.report import balance_json, balance_table

    balances = validate_landing(Home.at(home))
    _say(json.dumps(balance_json(balances), indent=1) if as_json else balance_table(balances))


@app.command()
def run(
    home: HomeOption = None,
    domain: DomainOption = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Day to decide for (YYYY-MM-DD); else the latest.")
    ] = None,
) -> None:
    """Takes new files in and decides as of a day, using only what was known before it opened."""
    from npq_assets.deciding import decide

    decide(Home.at(home), _domain(domain), _day(as_of), _say)


@app.command()
def listen(
    home: HomeOption = None,
    broker: Annotated[str | None, typer.Option(help="Broker as host:port; else `mqtt` of npq.toml.")] = None,
    topic: Annotated[str | None, typer.Option(help="First part of all topics; else `mqtt_topic`.")] = None,
    user: Annotated[str | None, typer.Option(help="Name to log in with; the password is in NPQ_MQTT_PASSWORD.")] = None,
    tls: Annotated[bool | None, typer.Option(help="Encrypt the connection; else `mqtt_tls`.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The certificate authority's PEM file; else `mqtt_ca`.")] = None,
    rows: Annotated[int | None, typer.Option(help="Readings a file at most; else `batch_rows`.", min=1)] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Seconds a file at most; else `batch_seconds`.", min=0.1)
    ] = None,
    client_id: Annotated[str, typer.Option(help="Name of our session at the broker.")] = "",
) -> None:
    """Hears a machine's readings from an MQTT broker and lands them as telemetry, until it is stopped (Ctrl-C)."""
    import signal
    import threading

    from npq_assets.ingestion.listening import Listener
    from npq_assets.mqtt import broker_of

    place = Home.at(home)
    chosen = broker_of(place.settings, mqtt=broker, topic=topic, user=user, tls=tls, ca=str(ca) if ca else None)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    heard = Listener(
        place,
        chosen,
        rows=rows or place.settings.batch_rows,
        seconds=seconds or place.settings.batch_seconds,
        client_id=client_id,
        say=_say,
    ).run(stop)
    _say(f"{heard.rows:,} readings of {heard.messages:,} messages landed in {heard.batches:,} files")


@app.command()
def replay(
    home: HomeOption = None,
    policy: Annotated[list[str] | None, typer.Option(help="`npq`, `naive` or `module:function`; repeatable.")] = None,
    windows: Annotated[int, typer.Option(help="How many past windows.", min=1)] = 4,
    periods: Annotated[int, typer.Option(help="Scored periods a window; 0 for 6 weeks or 14 days.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Replays policies over rolling past windows and compares what they would have cost."""
    from npq_assets.retail.replaying import replay_policies

    result = replay_policies(Home.at(home), policy or ["npq", "naive"], windows, periods, _quiet if as_json else _say)
    _say(json.dumps(result.as_json(), indent=1) if as_json else result.as_text())


def _quiet(_: str) -> None:
    return None


@app.command()
def simulate(
    home: HomeOption = None,
    weeks: Annotated[int, typer.Option(help="Weeks to live on.", min=1)] = 4,
    seed: SeedOption = 0,
    domain: DomainOption = None,
    scale: Annotated[float, typer.Option(help="Size of the sample company.", min=0.01)] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Lets the sample company live on, under the naive policies and under npq's, with the same random events."""
    from npq_assets.simulating import simulate_company

    result = simulate_company(
        Home.at(home),
        weeks=weeks,
        seed=seed,
        domain=None if domain is None else _domain(domain),
        scale=scale,
        say=_quiet if as_json else _say,
    )
    _say(json.dumps(result.as_json(), indent=1) if as_json else result.as_text())


@app.command()
def explain(decision_id: str, home: HomeOption = None) -> None:
    """Prints the way from a decision back to its forecast, its model, its inputs and the landed rows."""
    from npq_assets.evaluation.trace import explain as explain_decision

    _say(explain_decision(Home.at(home), decision_id))


@app.command("move-order")
def move_order(
    order_id: str,
    due: Annotated[str, typer.Option(help="The due date asked for, YYYY-MM-DD.")],
    as_of: Annotated[str | None, typer.Option(help="Decision day, YYYY-MM-DD; else the latest planned.")] = None,
    home: HomeOption = None,
) -> None:
    """What changes in the production plan if an order is due on another day; nothing is written."""
    from npq_assets.manufacturing.output import latest_planned, load_plan
    from npq_assets.manufacturing.what_if import move_order as moved

    at = Home.at(home)
    day = _day(as_of) or latest_planned(at)
    plan = load_plan(at, day)
    if plan is None:
        raise NpqError(f"there is no production plan as of {day}; npq run makes it")
    from npq_assets.manufacturing.inputs import read_inputs

    wanted = _day(due)
    assert wanted is not None
    answer = moved(read_inputs(at, day), plan, order_id, wanted)
    _say(answer.sentence)
    for lot in answer.lots.iter_rows(named=True):
        _say(
            f"  {lot['period_start']} {lot['machine_id']} {lot['product_id']}: {lot['before']:,.0f} -> {lot['after']:,.0f}"
        )


settings_app = typer.Typer(no_args_is_help=True, help="Set-points of machines: approve, publish, roll back.")
app.add_typer(settings_app, name="settings")
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="Day of the proposals, YYYY-MM-DD; else the latest.")]
LiveOption = Annotated[bool, typer.Option("--live", help="Really send; without it nothing leaves.")]


def _proposed(home: Home, as_of: str | None) -> date:
    found = sorted(home.decision_folder("manufacturing", "machine_settings").glob("as_of=*"))
    day = _day(as_of)
    if day is None and not found:
        raise NpqError(f"{home.root}: no settings were proposed yet; npq run makes them")
    return day or date.fromisoformat(found[-1].name.removeprefix("as_of="))


@settings_app.command("list")
def settings_list(as_of: AsOfOption = None, home: HomeOption = None) -> None:
    """Proposals of a day and what became of earlier ones."""
    from npq_assets.manufacturing.approval import listing

    at = Home.at(home)
    for row in listing(at, _proposed(at, as_of)):
        _say(
            f"{row['decision_id']}  {row['machine']:<16} {row['setting']:<14} {row['from']:>10g} -> {row['to']:<10g} "
            f"{row['standing']}"
        )


@settings_app.command("approve")
def settings_approve(
    decision_id: Annotated[list[str] | None, typer.Argument(help="Decisions; none for all of the day.")] = None,
    by: Annotated[str, typer.Option(help="Who approves.")] = "",
    as_of: AsOfOption = None,
    home: HomeOption = None,
) -> None:
    """Approves proposed settings; nothing leaves before `publish --live`."""
    from npq_assets.manufacturing.approval import approve, proposals

    at = Home.at(home)
    day = _proposed(at, as_of)
    chosen = decision_id or [point.decision_id for point in proposals(at, day)]
    _say(f"{len(approve(at, day, chosen, by))} approved by {by}")


@settings_app.command("publish")
def settings_publish(live: LiveOption = False, home: HomeOption = None) -> None:
    """Hands approved settings to the broker of npq.toml, else to the outbox; a dry run unless --live."""
    from npq_assets.manufacturing.approval import publish, publisher_for

    at = Home.at(home)
    for found in publish(at, publisher_for(at), live=live):
        _say(f"{found.set_point.machine_id} {found.set_point.setting}: {found.status}; {found.detail}")


@settings_app.command("rollback")
def settings_rollback(decision_id: list[str], live: LiveOption = False, home: HomeOption = None) -> None:
    """Sets the values again that were in force before; a dry run unless --live."""
    from npq_assets.manufacturing.approval import publisher_for, roll_back

    at = Home.at(home)
    for found in roll_back(at, decision_id, publisher_for(at), live=live):
        _say(f"{found.set_point.machine_id} {found.set_point.setting}: {found.status}; {found.detail}")


@app.command()
def replan(
    as_of: Annotated[str, typer.Option("--as-of", help="The day whose routes are re-planned, YYYY-MM-DD.")],
    now: Annotated[
        str, typer.Option(help="Time of that day, HH:MM; vehicles that have left by then keep their routes.")
    ] = "00:00",
    vehicle_down: Annotated[
        list[str] | None, typer.Option(help="A vehicle that drives no further; repeatable.")
    ] = None,
    closed: Annotated[
        list[str] | None, typer.Option(help="A closed road segment, FROM_NODE,TO_NODE; repeatable.")
    ] = None,
    vehicle_back: Annotated[
        list[str] | None, typer.Option(help="A vehicle that was down and drives again; repeatable.")
    ] = None,
    opened: Annotated[
        list[str] | None,
        typer.Option(help="A segment that was closed and is open again, FROM_NODE,TO_NODE; repeatable."),
    ] = None,
    vehicle_price: Annotated[float, typer.Option(help="Price of giving a delivery to another vehicle.", min=0)] = 5.0,
    time_price: Annotated[
        float, typer.Option(help="Price of another time, for deliveries without a rebook_cost.", min=0)
    ] = 5.0,
    tolerance: Annotated[float, typer.Option(help="Minutes that are not another time.", min=0)] = 30.0,
    most_routes: Annotated[int | None, typer.Option(help="Routes that may change at most.", min=1)] = None,
    write: Annotated[bool, typer.Option("--write", help="Make it the day's plan: decisions, ledger, map.")] = False,
    dispatch: Annotated[bool, typer.Option("--dispatch", help="With --write: also the drivers' lists.")] = False,
    as_landed: Annotated[
        bool, typer.Option("--as-landed", help="Look at what was taken in before; do not take new files in first.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Re-plans a day's routes while they are driven: new orders, lost vehicles, closed roads; shows cost against change."""
    from npq_assets.logistics import replanning

    at, day = Home.at(home), _day(as_of)
    assert day is not None
    if dispatch and not write:
        raise NpqError("--dispatch writes the lists of a plan that counts; give --write too")
    happened = replanning.Happened(
        _minute(now),
        tuple(vehicle_down or ()),
        tuple(_road(pair, "closed") for pair in closed or ()),
        tuple(vehicle_back or ()),
        tuple(_road(pair, "opened") for pair in opened or ()),
    )
    if not as_landed:
        from npq_assets.runs import Runner

        Runner(at).run("transform").raise_for_failure()
    answer = replanning.replan_day(
        at, day, happened, replanning.Prices(vehicle_price, time_price, tolerance, most_routes)
    )
    _say(answer.as_text())
    if not write:
        _say("nothing was written; --write makes it the day's plan, --dispatch writes the drivers' lists")
        return
    for place in replanning.write(at, day, answer, dispatch=dispatch):
        _say(f"written: {place}")


def _minute(text: str) -> float:
    hours, _, minutes = text.partition(":")
    minute = 60 * int(hours) + int(minutes) if hours.isdecimal() and minutes.isdecimal() else -1
    if not (0 <= minute <= 1440 and int(minutes) < 60):
        raise NpqError(f"--now {text!r} is not a time of the day; write HH:MM")
    return float(minute)


def _road(text: str, option: str) -> tuple[str, str]:
    start, comma, end = text.partition(",")
    if not (start.strip() and comma and end.strip()):
        raise NpqError(f"--{option} {text!r} is not a road; write FROM_NODE,TO_NODE")
    return start.strip(), end.strip()


@app.command()
def forget(
    customer_id: Annotated[str, typer.Argument(help="The customer.")] = "",
    home: HomeOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Forget those who were forgotten and have landed again since.")
    ] = False,
    readmit: Annotated[
        bool, typer.Option("--readmit", help="Let the customer, who has come back, be known again from now on.")
    ] = False,
) -> None:
    """Removes every trace of a customer, from landing files to decisions, and proves it by searching what is left."""
    from npq_assets.retail import privacy

    if again + readmit > 1 or bool(customer_id.strip()) == again:
        raise NpqError("forget: give a customer id, with --readmit or without; or --again alone")
    place = Home.at(home)
    if readmit:
        privacy.readmit(place, customer_id)
        _say("rows of this customer that land from now on count again")
        return
    if again:
        found = privacy.forget_returned(place)
        _say(f"{len(found)} customers who were forgotten had landed again")
    else:
        found = [privacy.forget(place, customer_id)]
    for done in found:
        _say(done.as_text())
    if any(done.found for done in found):
        raise RunError("traces of the customer are left; see above")


@app.command()
def docs(home: HomeOption = None) -> None:
    """Writes dbt docs as one static page."""
    from npq_assets.deciding import build_docs

    _say(str(build_docs(Home.at(home))))


@app.command()
def dev(
    home: HomeOption = None, port: Annotated[int, typer.Option(help="Port on localhost.", min=1, max=65535)] = 3000
) -> None:
    """Opens the Dagster UI on localhost, with schedules and sensors."""
    from npq_assets.runs import prepare_instance

    place = Home.at(home)
    prepare_instance(place)
    workspace = Path(__file__).resolve().parents[1] / "workspace.yaml"
    os.execv(
        sys.executable,
        [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)],
    )


logging.getLogger("npq").addHandler(logging.NullHandler())

if __name__ == "__main__":
    main()
