"""How messages leave: as files, by SMTP, or not at all (a dry run, which is the default); each once.

Consent is looked at again in the landed rows at the moment of sending; addresses are read then and kept nowhere.
"""

from __future__ import annotations

import os
import re
import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.errors import NpqError, RunError
from npq_assets.publishing import read_decisions
from npq_assets.retail.consent import STOPPED, in_doubt
from npq_assets.retail.customer_inputs import KEY
from npq_assets.retail.privacy import personal_folder, pseudonym, secret
from npq_assets.settings import Home, Settings
from npq_assets.storage import replacing, write_parquet

MESSAGES = DECISIONS["retail.messages"]
# One address: a comma or a line break in it would write to somebody else as well.
_ADDRESS = re.compile(r"[^\s@,;:<>()\[\]\\\"]+@[^\s@,;:<>()\[\]\\\"]+")
PASSWORD = "NPQ_SMTP_PASSWORD"
RETRY_DAYS = 2
_IN_THE_CLEAR = 'a password would travel in the clear; set smtp_tls = "starttls" or "tls"'
_LEFT = {"message_id": pl.String, KEY: pl.String, "left_on": pl.Date}


class Refused(Exception):
    """This message is not taken; others may be."""


class Later(Refused):
    """This message is not taken now; it may be soon (a server that makes strangers wait, a full mailbox)."""


class Carrier(Protocol):
    """Takes one message at a time."""

    def deliver(self, message: EmailMessage) -> None:
        """Hands the message on; raises Refused (or Later) if this one is not taken, RunError if none is."""
        ...


@dataclass(frozen=True)
class FileCarrier:
    """Writes messages as `<message id>.eml` that a mail system picks up.

    Attributes:
        folder: Where they go.
    """

    folder: Path

    def deliver(self, message: EmailMessage) -> None:
        """Writes the message whole or not at all."""
        with replacing(self.folder / f"{_id_of(message)}.eml") as temporary:
            temporary.write_bytes(message.as_bytes())


@dataclass(frozen=True)
class SmtpCarrier:
    """Sends messages to a mail server.

    Attributes:
        host: Its name.
        port: Its port.
        tls: `starttls`, `tls` or `none`.
        user: Name to log in with; empty for none.
        password: Its password; shown and written nowhere.
        ca: File of the certificate authority; empty for those that the system knows.
        seconds: Time limit of a connection.
    """

    host: str
    port: int
    tls: str = "none"
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    seconds: float = 20.0

    def deliver(self, message: EmailMessage) -> None:
        """Sends one message.

        Raises:
            Refused: The server does not take this message; Later if not yet.
            RunError: The server cannot be reached, does not encrypt or log in as asked, or takes nothing.
        """
        try:
            server = self._connected()
            try:
                server.send_message(message)
            except smtplib.SMTPNotSupportedError as error:
                raise Refused(type(error).__name__) from error
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
                # One address that is not taken must not keep the messages to all others.
                raise (Later if _passes(error) else Refused)(type(error).__name__) from error
            finally:
                # The message is the server's from its answer on, whatever becomes of the farewell.
                with suppress(OSError, smtplib.SMTPException):
                    server.quit()
                server.close()
        except smtplib.SMTPAuthenticationError:
            # Without what the server said, which may repeat the name and more.
            raise self._stopped(f"refuses the login; check smtp_user and {PASSWORD}") from None
        except ssl.SSLCertVerificationError as error:
            why = f"its certificate is not trusted ({error.verify_message}); name its authority in smtp_ca"
            raise self._stopped(why) from error
        except (OSError, smtplib.SMTPException) as error:
            raise self._stopped(type(error).__name__) from error

    def _connected(self) -> smtplib.SMTP:
        """A connection that is encrypted as asked before anything is said on it; never less."""
        if self.tls == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.seconds, context=ssl.create_default_context(cafile=self.ca or None)
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=self.seconds)
        try:
            if self.tls == "starttls":
                try:
                    code, _ = server.starttls(context=ssl.create_default_context(cafile=self.ca or None))
                except smtplib.SMTPNotSupportedError:
                    code = 0
                if code != 220:
                    raise self._stopped("does not encrypt (STARTTLS), so that nothing is sent; check smtp_tls and port")
            if self.user:
                if self.tls == "none" and not _is_here(self.host):
                    raise self._stopped(_IN_THE_CLEAR)
                try:
                    server.login(self.user, self.password)
                except smtplib.SMTPNotSupportedError:
                    raise self._stopped("offers no login; check smtp_user and port") from None
        except BaseException:
            server.close()
            raise
        return server

    def _stopped(self, why: str) -> RunError:
        return RunError(
            f"mail server {self.host}:{self.port}: {why}; messages left stay in the outbox and leave with the next run"
        )


def _passes(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError) -> bool:
    """Whether the server says that it may take the message later (RFC 5321, 4.2.1: codes of 400 to 499)."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(400 <= code < 500 for code, _ in error.recipients.values())
    return 400 <= error.smtp_code < 500


def _is_here(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Handed:
    """What became of a day's messages.

    Attributes:
        sent: Ids of those that left now.
        refused: How many have an address that is none, or that the server does not take.
        over_limit: How many wait since enough left to the customer within seven days.
        no_address: How many go to customers who agree but have no address.
        later: How many wait since the server does not take them yet.
        note: Why nothing was tried, if so.
    """

    sent: list[str]
    refused: int = 0
    over_limit: int = 0
    no_address: int = 0
    later: int = 0
    note: str = ""


def send(home: Home, messages: pl.DataFrame, carrier: Carrier, people: pl.DataFrame, day: date) -> Handed:
    """Hands on the messages that did not leave before, as far as consent and the weekly limit allow it now.

    An id is noted right after its message left: if the process dies between the two, that one message leaves again, under
    the same Message-ID, by which mail systems drop doubles. A day before the last that was handed on is over: nothing leaves
    for it any more, else a day that is decided again would write to people about what is past.

    Args:
        home: The home whose outbox remembers what left.
        messages: The columns of the decision table.
        carrier: How they leave.
        people: customer_id, email, marketing_consent as landed now; others get nothing.
        day: The as-of day.

    Raises:
        RunError: The mail server does not work; what did not leave is noted and leaves with the next run.
    """
    folder, key = _folder(home), secret(home)
    left = _what_left(home)
    if (folder / "leaving.csv").exists():  # an interrupted run's: a new line must not go on in one that it tore
        _remember(home, left)
    if left.filter(pl.col("left_on") > day).height:
        return Handed([], note="messages of a later day have left already; nothing leaves for this day any more")
    known = set(left["message_id"].to_list())
    week = left.filter(pl.col("left_on") > day - timedelta(days=7)).drop_nulls(KEY)
    counts = dict(week.group_by(KEY).len().iter_rows())
    allowed = people.filter(pl.col("marketing_consent").fill_null(False))
    rows = messages.join(allowed.select("customer_id", "email"), on="customer_id", how="inner").sort("message_id")
    rows = rows.filter(~pl.col("message_id").is_in(sorted(known)))
    no_address, rows = rows["email"].null_count(), rows.drop_nulls("email")
    sent, later, tried, over, refused = list[str](), list[str](), 0, 0, 0
    waiting = folder / "waiting.parquet"
    try:
        for row in rows.iter_rows(named=True):
            customer = pseudonym(key, row["customer_id"])
            if counts.get(customer, 0) >= home.settings.messages_per_week:
                over += 1
            elif not _ADDRESS.fullmatch(row["email"]):
                refused += 1
            else:
                try:
                    carrier.deliver(_email(row, home.settings.sender))
                except Later:
                    later.append(row["message_id"])
                except Refused:
                    refused += 1
                else:
                    _note(folder, row["message_id"], customer, day)
                    counts[customer] = counts.get(customer, 0) + 1
                    sent.append(row["message_id"])
            tried += 1
    finally:
        if sent:
            _remember(home, _what_left(home))
        left_over = rows.with_row_index("__n").filter((pl.col("__n") >= tried) | pl.col("message_id").is_in(later))
        if left_over.height:
            write_parquet(left_over.select("message_id", "as_of"), waiting)
        else:
            waiting.unlink(missing_ok=True)
    return Handed(sent, refused, over, no_address, len(later))


def to_send(home: Home, day: date) -> pl.DataFrame:
    """The day's messages, and those of the two days before that a mail server which did not work kept from leaving.

    That a delivery is late is said on the day itself or not at all.
    """
    frames = [read_decisions(home, MESSAGES, day)]
    place = _folder(home) / "waiting.parquet"
    if place.exists():
        waiting = pl.read_parquet(place)
        for earlier in (day - timedelta(days=k) for k in range(1, RETRY_DAYS + 1)):
            ids = waiting.filter(pl.col("as_of") == earlier)["message_id"].to_list()
            rows = read_decisions(home, MESSAGES, earlier) if ids else MESSAGES.empty()
            frames.append(rows.filter(pl.col("message_id").is_in(ids) & (pl.col("kind") != "late_delivery")))
    return pl.concat(frames).unique("message_id", keep="first", maintain_order=True)


def on_the_way(home: Home) -> pl.DataFrame:
    """Messages that left, or that a mail server which did not work keeps waiting: message_id, since, until.

    The days between are those as of which the message may have been decided: a retry leaves up to two days later.
    """
    folder = _folder(home)
    left = _what_left(home).select(
        "message_id", (pl.col("left_on") - timedelta(days=RETRY_DAYS)).alias("since"), pl.col("left_on").alias("until")
    )
    if not (folder / "waiting.parquet").exists():
        return left
    waiting = pl.read_parquet(folder / "waiting.parquet")
    return pl.concat([left, waiting.select("message_id", since="as_of", until="as_of")])


def _folder(home: Home) -> Path:
    return home.root / "outbox" / "retail" / "messages"


def _memories(home: Home) -> tuple[Path, Path]:
    """What left is remembered twice: whoever empties the outbox must not make npq write to everybody again."""
    return _folder(home) / "sent.parquet", home.root / "personal" / "messages_left.parquet"


def _remember(home: Home, left: pl.DataFrame) -> None:
    personal_folder(home)
    for place in _memories(home):
        write_parquet(left, place)
    (_folder(home) / "leaving.csv").unlink()


def _what_left(home: Home) -> pl.DataFrame:
    """message_id, customer_key, left_on of all that left: the memory, and the journal that an interrupted run left behind."""
    folder = _folder(home)
    frames = [pl.DataFrame(schema=_LEFT), *(pl.read_parquet(place) for place in _memories(home) if place.exists())]
    if (folder / "leaving.csv").exists():
        lines = (folder / "leaving.csv").read_text(errors="replace").splitlines(keepends=True)
        # A line that a dying process did not finish is not noted: half a date would be another day.
        whole = [line.rstrip("\n").split(",") for line in lines if line.endswith("\n")]
        rows = [line for line in whole if len(line) == len(_LEFT)]
        journal = pl.DataFrame(rows, schema=dict.fromkeys(_LEFT, pl.String), orient="row")
        frames.append(journal.with_columns(pl.col("left_on").str.to_date("%Y-%m-%d", strict=False)).drop_nulls())
    return pl.concat(frames, how="diagonal").unique("message_id", keep="first").sort("message_id")


def _note(folder: Path, message: str, customer: str, day: date) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "leaving.csv").open("a") as journal:
        journal.write(f"{message},{customer},{day}\n")
        journal.flush()
        os.fsync(journal.fileno())


def carrier_of(home: Home) -> Carrier | None:
    """The carrier that the settings name; None for a dry run.

    Raises:
        NpqError: The mail server is set so that a password would be missing or travel in the clear.
    """
    if not home.settings.publish:
        return None
    if home.settings.smtp:
        return _smtp_of(home.settings)
    return FileCarrier(_folder(home))


def _smtp_of(settings: Settings) -> SmtpCarrier:
    host, _, port = settings.smtp.rpartition(":")
    host, password = host.strip("[]"), os.environ.get(PASSWORD, "")
    if settings.smtp_user and settings.smtp_tls == "none" and not _is_here(host):
        raise NpqError(f"mail server {host}:{port}: {_IN_THE_CLEAR}")
    if settings.smtp_user and not password:
        raise NpqError(f"mail server {host}:{port}: smtp_user is set, but no password; put it into {PASSWORD}")
    if settings.smtp_ca and not Path(settings.smtp_ca).is_file():
        raise NpqError(f"smtp_ca = {settings.smtp_ca!r}: no such file; name the certificate authority's PEM file")
    return SmtpCarrier(host, int(port), settings.smtp_tls, settings.smtp_user, password, settings.smtp_ca)


def addressees(home: Home) -> pl.DataFrame:
    """customer_id, email, marketing_consent as landed; none is left to who unsubscribed, was not reached or is in doubt."""
    place = home.raw_table("retail", "customers")
    wanted = {"customer_id": pl.String, "email": pl.String, "marketing_consent": pl.Boolean}
    if not place.exists():
        return pl.DataFrame(schema=wanted)
    frame = pl.read_parquet(place)
    people = frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None).alias(name)).cast(kind)
        for name, kind in wanted.items()
    )
    gone = in_doubt(home)["customer_id"].to_list()
    replies = home.raw_table("retail", "message_replies")
    if replies.exists():
        gone += pl.read_parquet(replies).filter(pl.col("kind").is_in(STOPPED))["customer_id"].to_list()
    return people.with_columns(pl.col("marketing_consent") & ~pl.col("customer_id").is_in(gone))


def without_address(people: pl.DataFrame) -> int:
    """How many of the addressees agree and have no address."""
    return people.filter(pl.col("marketing_consent").fill_null(False) & pl.col("email").is_null()).height


def _email(row: dict[str, object], sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = str(row["email"])
    # A line break in a subject would start a header of its own.
    message["Subject"] = " ".join(str(row["subject"]).split())
    message["Message-ID"] = f"<{row['message_id']}@npq>"
    message["Date"] = format_datetime(row["due_at"])  # type: ignore[arg-type]
    message.set_content(f"{row['body']}\n")
    return message


def _id_of(message: EmailMessage) -> str:
    return str(message["Message-ID"]).strip("<>").partition("@")[0]
