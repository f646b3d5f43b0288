"""A Twilio account's REST API in this process, by Twilio's pages: strict about what it is sent.

It shares no code with voiced, blocks a thread of its own, and is spoken to by the official SDK too.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree as ET

ACCOUNT = "AC" + "0123456789abcdef" * 2
TOKEN = "fedcba9876543210"


def names(text: str) -> set[str]:
    return set(text.split())


CREATE_FIELDS = names(
    "To From Url Twiml ApplicationSid Method FallbackUrl FallbackMethod StatusCallback "
    "StatusCallbackEvent StatusCallbackMethod SendDigits Timeout TimeLimit Record "
    "MachineDetection MachineDetectionTimeout AsyncAmd AsyncAmdStatusCallback "
    "AsyncAmdStatusCallbackMethod SipAuthUsername SipAuthPassword CallerId CallReason"
)
UPDATE_FIELDS = names("Url Method Status Twiml FallbackUrl FallbackMethod TimeLimit")
OVER = {"completed", "busy", "failed", "no-answer", "canceled"}


@dataclass(frozen=True)
class Asked:
    """One request: the form sorted, so that two clients can be compared."""

    method: str
    path: str
    auth: tuple[str, str]
    content_type: str
    form: tuple[tuple[str, str], ...]


@dataclass
class Failure:
    """What to answer instead, once."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    late: bool = False  # after the request has been carried out


class Refusal(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class FakeRest:
    """The account: its calls, what was asked, and what goes wrong next."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, str]] = {}
        self.asked: list[Asked] = []
        self.failures: list[Failure] = []
        self.answering = threading.Event()
        """Cleared, requests are carried out and their answers wait."""
        self.answering.set()
        self.url = ""

    def handle(self, asked: Asked) -> tuple[int, dict[str, str]]:
        if asked.auth != (ACCOUNT, TOKEN):
            raise Refusal(401, 20003, "Authenticate")
        base = f"/2010-04-01/Accounts/{ACCOUNT}/Calls"
        if asked.path == f"{base}.json" and asked.method == "POST":
            return 201, self._create(asked)
        match = re.fullmatch(re.escape(base) + r"/(CA[0-9a-f]{32})\.json", asked.path)
        if not match or match[1] not in self.calls:
            raise Refusal(404, 20404, f"The requested resource {asked.path} was not found")
        call = self.calls[match[1]]
        if asked.method == "POST":
            self._update(call, asked)
        return 200, call

    def _create(self, asked: Asked) -> dict[str, str]:
        form = self._form(asked, CREATE_FIELDS, repeatable={"StatusCallbackEvent"})
        if "To" not in form:
            raise Refusal(400, 21201, "No 'To' number is specified")
        if "From" not in form:
            raise Refusal(400, 21603, "A 'From' phone number is required")
        if not re.fullmatch(r"\+[1-9]\d{1,14}|sip:\S+@\S+|client:\S+", form["To"]):
            raise Refusal(400, 21211, f"The phone number {form['To']} is not a valid phone number")
        self._says_what(form, {"Url", "Twiml", "ApplicationSid"})
        if not 1 <= int(form.get("Timeout", "60")) <= 600:
            raise Refusal(400, 21208, "Invalid timeout")
        for name in ("StatusCallback", "AsyncAmdStatusCallback"):
            if name in form and urlsplit(form[name]).scheme not in ("http", "https"):
                raise Refusal(400, 21609, f"{name} is not a valid URL")
        if form.get("MachineDetection", "Enable") not in ("Enable", "DetectMessageEnd"):
            raise Refusal(400, 20001, "MachineDetection")
        if form.get("AsyncAmd", "true") not in ("true", "false"):
            raise Refusal(400, 20001, "AsyncAmd")
        events = {value for name, value in asked.form if name == "StatusCallbackEvent"}
        if events - {"initiated", "ringing", "answered", "completed"}:
            raise Refusal(400, 21626, "StatusCallbackEvent")
        sid = f"CA{len(self.calls):032x}"
        self.calls[sid] = {
            "sid": sid,
            "account_sid": ACCOUNT,
            "status": "queued",
            "to": form["To"],
            "from": form["From"],
            "direction": "outbound-api",
            "queue_time": "0",
        }
        return self.calls[sid]

    def _update(self, call: dict[str, str], asked: Asked) -> None:
        form = self._form(asked, UPDATE_FIELDS)
        if call["status"] in OVER:
            raise Refusal(400, 21220, "Invalid call state: call is not in-progress")
        self._says_what(form, {"Url", "Twiml", "Status"})
        if form.get("Status", "completed") not in ("completed", "canceled"):
            raise Refusal(400, 21218, "Invalid status")
        call["status"] = form.get("Status", call["status"])

    def _form(
        self, asked: Asked, known: set[str], repeatable: set[str] | None = None
    ) -> dict[str, str]:
        if not asked.content_type.startswith("application/x-www-form-urlencoded"):
            raise Refusal(415, 20415, "Unsupported media type")
        fields = [name for name, _ in asked.form if name not in (repeatable or set())]
        if len(set(fields)) < len(fields) or set(fields) - known:
            raise Refusal(400, 20001, f"Unknown or repeated parameters: {fields}")
        return dict(asked.form)

    def _says_what(self, form: dict[str, str], names: set[str]) -> None:
        if len(names & set(form)) != 1:
            raise Refusal(400, 21205, f"Exactly one of {sorted(names)} is required")
        if "Twiml" in form:
            if len(form["Twiml"]) > 4000:
                raise Refusal(400, 21670, "Twiml is too long")
            try:
                assert ET.fromstring(form["Twiml"]).tag == "Response"
            except (ET.ParseError, AssertionError):
                raise Refusal(400, 12100, "Document parse failure") from None


@contextmanager
def fake_rest() -> Iterator[FakeRest]:
    """Serve an account on loopback."""
    account = FakeRest()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            kind, _, credentials = self.headers.get("Authorization", "").partition(" ")
            user, _, password = base64.b64decode(credentials).decode().partition(":")
            form = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body)
            )
            asked = Asked(
                self.command,
                self.path,
                (user, password) if kind == "Basic" else ("", ""),
                self.headers.get("Content-Type", ""),
                tuple(sorted(form)),
            )
            account.asked.append(asked)
            failure = account.failures.pop(0) if account.failures else None
            if failure is not None and not failure.late:
                self._send(failure.status, failure.body, failure.headers)
                return
            status, answer = self._handled(asked)
            account.answering.wait(60)
            if failure is not None:
                self._send(failure.status, failure.body, failure.headers)
            else:
                self._send(status, json.dumps(answer).encode())

        def _handled(self, asked: Asked) -> tuple[int, object]:
            try:
                return account.handle(asked)
            except Refusal as error:
                return error.status, {
                    "code": error.code,
                    "message": error.message,
                    "more_info": f"https://www.twilio.com/docs/errors/{error.code}",
                    "status": error.status,
                }

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            if status == 0:  # hang up instead of answering
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # whoever asked may have gone
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        account.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield account
        finally:
            server.shutdown()
            thread.join(10)
