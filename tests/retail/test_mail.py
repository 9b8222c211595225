"""Messages leave once, only to those who agree, as files or through a real local mail server."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.errors import NpqError, RunError
from npq_assets.publishing import write_decisions
from npq_assets.retail import mail
from npq_assets.retail.mail import FileCarrier, SmtpCarrier, addressees, carrier_of, on_the_way, send, to_send
from npq_assets.settings import Home, Settings

MESSAGES = pl.DataFrame(
    {
        "message_id": ["m1", "m2", "m3"],
        "customer_id": ["C1", "C2", "C3"],
        "subject": ["Tea\nBcc: all@example.org", "Milk", "茶"],
        "body": ["10 % off", "is back", "在"],
        "due_at": [datetime(2025, 7, 1, 9, tzinfo=UTC)] * 3,
        "as_of": [date(2025, 7, 1)] * 3,
    }
)
DAY = date(2025, 7, 1)
PEOPLE = pl.DataFrame(
    {
        "customer_id": ["C1", "C2", "C3"],
        "email": ["c1@example.org", "c2@example.org", "c3@example.org"],
        "marketing_consent": [True, False, True],
    }
)


class Inbox:
    def __init__(self) -> None:
        self.got: list[Any] = []
        self.rude = False

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("gone"):
            return "550 no such user"
        if address.startswith("later") and not self.got:
            return "451 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.got.append(envelope)
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        return "421 closing" if self.rude else "221 bye"


@pytest.fixture
def server() -> Iterator[tuple[int, Inbox]]:
    controller = pytest.importorskip("aiosmtpd.controller")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inbox = Inbox()
    running = controller.Controller(inbox, hostname="127.0.0.1", port=port)
    running.start()
    yield port, inbox
    running.stop()


def test_a_real_server_gets_each_message_once(tmp_path: Path, server: tuple[int, Inbox]) -> None:
    port, inbox = server
    home, carrier = Home(tmp_path), SmtpCarrier("127.0.0.1", port)
    assert send(home, MESSAGES, carrier, PEOPLE, DAY).sent == ["m1", "m3"]
    assert send(home, MESSAGES, carrier, PEOPLE, DAY).sent == []
    assert [e.rcpt_tos for e in inbox.got] == [["c1@example.org"], ["c3@example.org"]]
    first = inbox.got[0].content.decode()
    assert "Message-ID: <m1@npq>" in first and "10 % off" in first
    assert not any(line.startswith("Bcc") for line in first.splitlines())


def test_files_are_written_once_and_nobody_without_consent_gets_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = tmp_path / "outbox/retail/messages"
    assert send(home, MESSAGES, FileCarrier(folder), PEOPLE, DAY).sent == ["m1", "m3"]
    assert sorted(p.name for p in folder.glob("*.eml")) == ["m1.eml", "m3.eml"]
    withdrawn = PEOPLE.with_columns(pl.lit(False).alias("marketing_consent"))
    assert send(Home(tmp_path / "other"), MESSAGES, FileCarrier(folder), withdrawn, DAY).sent == []


def test_what_left_before_a_failure_is_remembered(tmp_path: Path) -> None:
    class Fails:
        def __init__(self) -> None:
            self.count = 0

        def deliver(self, message: EmailMessage) -> None:
            self.count += 1
            if self.count == 2:
                raise RunError("mail server: down")

    with pytest.raises(RunError, match="down"):
        send(Home(tmp_path), MESSAGES, Fails(), PEOPLE, DAY)
    assert send(Home(tmp_path), MESSAGES, FileCarrier(tmp_path / "out"), PEOPLE, DAY).sent == ["m3"]


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RunError, match=f"mail server 127.0.0.1:{port}"):
        send(Home(tmp_path), MESSAGES, SmtpCarrier("127.0.0.1", port, 2.0), PEOPLE, DAY)


def test_the_default_is_a_dry_run(tmp_path: Path) -> None:
    assert carrier_of(Home(tmp_path)) is None
    assert isinstance(carrier_of(Home(tmp_path, Settings(publish=True))), FileCarrier)
    assert carrier_of(Home(tmp_path, Settings(publish=True, smtp="mail:25"))) == SmtpCarrier("mail", 25)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of this machine and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("certificate")
    own, secret_key = folder / "own.pem", folder / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*request, *names, "-keyout", secret_key, "-out", own], check=True, capture_output=True)
    return own, secret_key


@contextmanager
def mail_server(certificate: tuple[Path, Path] | None, **options: Any) -> Iterator[tuple[int, Inbox]]:
    """A mail server that knows `shop` with the password `s3cret`; `implicit` encrypts from the first byte on."""
    controllers, smtp = pytest.importorskip("aiosmtpd.controller"), pytest.importorskip("aiosmtpd.smtp")

    def knows(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> Any:
        return smtp.AuthResult(success=(given.login, given.password) == (b"shop", b"s3cret"), handled=False)

    class Running(controllers.Controller):  # type: ignore[misc,name-defined]
        def _trigger_server(self) -> None:
            """The controller's own first visit does not speak TLS as a client."""
            with socket.create_connection((self.hostname, self.port), 5):
                pass

    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inbox, implicit = Inbox(), options.pop("implicit", False)
    ways = {"ssl_context": context} if implicit else {"tls_context": context, "require_starttls": context is not None}
    ways |= {"auth_require_tls": context is not None and not implicit, **options}
    running = Running(inbox, hostname="127.0.0.1", port=port, authenticator=knows, **ways)
    running.start()
    try:
        yield port, inbox
    finally:
        running.stop()


def by(port: int, **more: Any) -> SmtpCarrier:
    return SmtpCarrier("127.0.0.1", port, **{"user": "shop", "password": "s3cret", "seconds": 5.0, **more})


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_messages_leave_encrypted_and_logged_in(tmp_path: Path, certificate: tuple[Path, Path], tls: str) -> None:
    with mail_server(certificate, implicit=tls == "tls", auth_required=True) as (port, inbox):
        known = str(certificate[0])
        with pytest.raises(RunError, match="certificate is not trusted.*smtp_ca"):
            send(Home(tmp_path), MESSAGES, by(port, tls=tls), PEOPLE, DAY)
        with pytest.raises(RunError, match="refuses the login") as wrong:
            send(Home(tmp_path), MESSAGES, by(port, tls=tls, ca=known, password="wr0ng"), PEOPLE, DAY)
        assert "wr0ng" not in str(wrong.value) and wrong.value.__cause__ is None
        assert not inbox.got
        assert send(Home(tmp_path), MESSAGES, by(port, tls=tls, ca=known), PEOPLE, DAY).sent == ["m1", "m3"]
        assert len(inbox.got) == 2


def test_a_server_that_does_not_encrypt_gets_no_password_and_no_message(tmp_path: Path) -> None:
    with mail_server(None) as (port, inbox):
        with pytest.raises(RunError, match="does not encrypt"):
            send(Home(tmp_path), MESSAGES, by(port, tls="starttls"), PEOPLE, DAY)
        assert not inbox.got and not (tmp_path / "outbox/retail/messages/sent.parquet").exists()
        # To this very machine a password need not be encrypted.
        assert send(Home(tmp_path), MESSAGES, by(port), PEOPLE, DAY).sent == ["m1", "m3"]


def test_no_password_travels_in_the_clear_or_stands_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def carrier(**settings: Any) -> Any:
        return carrier_of(Home(tmp_path, Settings(publish=True, smtp="mail.example.org:587", **settings)))

    monkeypatch.delenv("NPQ_SMTP_PASSWORD", raising=False)
    with pytest.raises(NpqError, match="in the clear"):
        carrier(smtp_user="shop")
    with pytest.raises(NpqError, match="NPQ_SMTP_PASSWORD"):
        carrier(smtp_user="shop", smtp_tls="starttls")
    monkeypatch.setenv("NPQ_SMTP_PASSWORD", "s3cret")
    with pytest.raises(NpqError, match="smtp_ca"):
        carrier(smtp_user="shop", smtp_tls="tls", smtp_ca="no/such.pem")
    found = carrier(smtp_user="shop", smtp_tls="starttls")
    assert found == SmtpCarrier("mail.example.org", 587, "starttls", "shop", "s3cret")
    assert "s3cret" not in repr(found)
    (tmp_path / "npq.toml").write_text('smtp_tls = "yes"')
    with pytest.raises(NpqError, match="starttls"):
        Home.at(tmp_path)


def test_an_unsubscription_counts_at_the_moment_of_sending(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name, frame in (
        ("customers", PEOPLE),
        ("message_replies", pl.DataFrame({"customer_id": ["C3", "C1"], "kind": ["unsubscribed", "opened"]})),
    ):
        home.raw_table("retail", name).parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(home.raw_table("retail", name))
    assert send(home, MESSAGES, FileCarrier(tmp_path / "out"), addressees(home), DAY).sent == ["m1"]


def test_one_bad_address_keeps_nobody_elses_message(tmp_path: Path, server: tuple[int, Inbox]) -> None:
    port, inbox = server
    home, carrier = Home(tmp_path), SmtpCarrier("127.0.0.1", port)
    everybody = PEOPLE.with_columns(pl.lit(True).alias("marketing_consent"))
    for bad in ("gone@example.org", "c1@example.org, x@example.org", "c1@example.org\nBcc: x@example.org", "none"):
        home = Home(tmp_path / bad.encode().hex())
        people = everybody.with_columns(pl.Series("email", [bad, "c2@example.org", "c3@example.org"]))
        handed = send(home, MESSAGES, carrier, people, DAY)
        assert (handed.sent, handed.refused) == (["m2", "m3"], 1)
        corrected = send(home, MESSAGES, carrier, everybody, DAY)
        assert corrected.sent == ["m1"]
    assert {tuple(e.rcpt_tos) for e in inbox.got} == {(f"c{k}@example.org",) for k in (1, 2, 3)}


def test_what_a_server_took_has_left_however_it_says_goodbye(tmp_path: Path, server: tuple[int, Inbox]) -> None:
    port, inbox = server
    inbox.rude = True
    home, carrier = Home(tmp_path), SmtpCarrier("127.0.0.1", port)
    assert send(home, MESSAGES, carrier, PEOPLE, DAY).sent == ["m1", "m3"]
    assert send(home, MESSAGES, carrier, PEOPLE, DAY).sent == [] and len(inbox.got) == 2


def test_what_a_server_does_not_take_yet_waits(tmp_path: Path, server: tuple[int, Inbox]) -> None:
    port, _ = server
    home, carrier = Home(tmp_path), SmtpCarrier("127.0.0.1", port)
    people = PEOPLE.with_columns(pl.Series("email", ["later@example.org", "c2@example.org", "c3@example.org"]))
    handed = send(home, MESSAGES, carrier, people, DAY)
    assert (handed.sent, handed.refused, handed.later) == (["m3"], 0, 1)
    assert on_the_way(home).filter(pl.col("message_id") == "m1").height == 1
    assert send(home, MESSAGES, carrier, people, DAY).sent == ["m1"]
    assert not (tmp_path / "outbox/retail/messages/waiting.parquet").exists()


def test_who_agrees_and_has_no_address_gets_nothing_and_is_counted(tmp_path: Path) -> None:
    people = PEOPLE.with_columns(pl.Series("email", [None, None, "c3@example.org"]))
    handed = send(Home(tmp_path), MESSAGES, FileCarrier(tmp_path / "out"), people, DAY)
    assert (handed.sent, handed.no_address) == (["m3"], 1)


def test_what_left_is_known_after_the_outbox_is_emptied(tmp_path: Path) -> None:
    home, folder = Home(tmp_path), tmp_path / "outbox/retail/messages"
    assert send(home, MESSAGES, FileCarrier(folder), PEOPLE, DAY).sent == ["m1", "m3"]
    shutil.rmtree(tmp_path / "outbox")
    assert send(home, MESSAGES, FileCarrier(folder), PEOPLE, DAY).sent == []
    assert on_the_way(home)["message_id"].to_list() == ["m1", "m3"]


def test_a_process_that_is_killed_sends_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(FileCarrier):
        def deliver(self, message: EmailMessage) -> None:
            super().deliver(message)
            if len(list(self.folder.glob("*.eml"))) == 2:
                raise SystemExit

    def nothing_is_written_any_more(*_: object) -> None:
        raise SystemExit

    everybody, folder = PEOPLE.with_columns(pl.lit(True).alias("marketing_consent")), tmp_path / "out"
    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        dying.setattr(mail, "write_parquet", nothing_is_written_any_more)
        send(Home(tmp_path), MESSAGES, Dies(folder), everybody, DAY)
    # The second left and was not noted: it may leave again; the first must not.
    assert send(Home(tmp_path), MESSAGES, FileCarrier(folder), everybody, DAY).sent == ["m2", "m3"]


@pytest.mark.parametrize("torn", ["m3", "m3,someb", "m3,somebody,2025-0"])
def test_a_note_that_a_dying_process_tore_stops_no_later_run(tmp_path: Path, torn: str) -> None:
    home, folder = Home(tmp_path), tmp_path / "outbox/retail/messages"
    folder.mkdir(parents=True)
    (folder / "leaving.csv").write_text(f"m1,somebody,{DAY}\n{torn}")
    assert send(home, MESSAGES, FileCarrier(folder), PEOPLE, DAY).sent == ["m3"]
    assert send(home, MESSAGES, FileCarrier(folder), PEOPLE, DAY).sent == []


def test_the_weekly_limit_holds_for_what_really_left(tmp_path: Path) -> None:
    home, folder = Home(tmp_path), FileCarrier(tmp_path / "out")
    assert send(home, MESSAGES, folder, PEOPLE, DAY).sent == ["m1", "m3"]

    def others(prefix: str) -> pl.DataFrame:
        return MESSAGES.with_columns(pl.concat_str(pl.lit(prefix), "message_id").alias("message_id"))

    # The day is decided again, with other messages: customers do not get more than two for it.
    assert send(home, others("again-"), folder, PEOPLE, DAY).sent == ["again-m1", "again-m3"]
    handed = send(home, others("third-"), folder, PEOPLE, DAY)
    assert handed.sent == [] and handed.over_limit == 2
    assert send(home, others("fourth-"), folder, PEOPLE, DAY + timedelta(days=6)).sent == []
    assert send(home, others("fifth-"), folder, PEOPLE, DAY + timedelta(days=7)).sent == ["fifth-m1", "fifth-m3"]
    past = send(home, others("past-"), folder, PEOPLE, DAY + timedelta(days=3))
    assert past.sent == [] and "later day" in past.note


def test_what_a_dead_server_kept_leaves_with_the_next_days_run(tmp_path: Path) -> None:
    class Dead:
        def deliver(self, message: EmailMessage) -> None:
            raise RunError("mail server: down")

    home, table = Home(tmp_path), DECISIONS["retail.messages"]
    kinds = ["late_delivery", "offer", "offer"]
    rows = MESSAGES.with_columns(
        pl.Series("kind", kinds),
        *[pl.lit("x").alias(name) for name in ("channel", "decision_id", "input_snapshot")],
        pl.lit(1.0).alias("value"),
    )
    write_decisions(home, table, DAY, rows)
    assert to_send(home, DAY + timedelta(days=1)).is_empty()  # a dry run of the day before leaves nothing to do
    with pytest.raises(RunError):
        send(home, to_send(home, DAY), Dead(), PEOPLE, DAY)
    tomorrow = DAY + timedelta(days=1)
    waiting = to_send(home, tomorrow)
    assert waiting["message_id"].to_list() == ["m3"]  # a late delivery is no news on the next day; m2 had no consent
    assert send(home, waiting, FileCarrier(tmp_path / "out"), PEOPLE, tomorrow).sent == ["m3"]
    assert to_send(home, tomorrow).is_empty()


@pytest.mark.parametrize("torn", ["", "m2", "m2,k2,2025-07-0", "m2,k2,2025-07-01"])
def test_a_journal_that_a_dying_process_left_is_read_as_far_as_it_is_whole(tmp_path: Path, torn: str) -> None:
    home, at = Home.at(tmp_path), tmp_path / "outbox/retail/messages/leaving.csv"
    at.parent.mkdir(parents=True)
    at.write_text("m1,k1,2025-06-30\n" + torn)
    assert mail._what_left(home).rows() == [("m1", "k1", date(2025, 6, 30))]
    at.write_text(torn)
    assert send(home, MESSAGES, FileCarrier(tmp_path / "out"), PEOPLE, DAY).sent == ["m1", "m3"]
