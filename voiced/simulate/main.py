"""`voiced simulate`: many callers against a daemon, a line for each, a table at the end."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from voiced.simulate import sip_caller
from voiced.simulate.caller import call
from voiced.simulate.client import Network
from voiced.simulate.line import DEFAULT_ECHO_MS, Line
from voiced.simulate.report import summary, trouble
from voiced.simulate.result import CallResult
from voiced.simulate.script import SCRIPTS, Script
from voiced.simulate.sip_caller import Credentials
from voiced.simulate.sip_message import BadMessage, parse_address

__all__ = ["Load", "SipTarget", "main", "place_calls"]


def main(
    *,
    url: str,
    calls: int = 1,
    concurrency: int = 1,
    script: str = "conversation",
    seed: int = 0,
    to: str = "+15550100",
    from_: str = "+15550199",
    auth_token: str | None = None,
    public_url: str | None = None,
    network_delay_ms: float = 0,
    jitter_ms: float = 0,
    stagger_ms: float = 100,
    deadline_s: float = 120.0,
    ca_file: Path | None = None,
    json_path: Path | None = None,
    wav_dir: Path | None = None,
    sip: str | None = None,
    username: str | None = None,
    password: str | None = None,
    codecs: str = "pcmu,pcma",
    echo_db: float | None = None,
    echo_ms: int | None = None,
) -> int:
    """Run the command. Returns its exit code: 0 all calls went well, 1 one did not, 2 usage.

    Args:
        url: the voice webhook; with no path, `/twilio/voice` on that server.
        calls: how many in all.
        concurrency: how many at a time.
        script: the name of one of `SCRIPTS`.
        seed: of the jitter; call n uses `seed + n`.
        to: the called number.
        from_: the calling number.
        auth_token: signs requests as Twilio does.
        public_url: the daemon's public URL, where it differs from `url`'s scheme and host.
        network_delay_ms: added to each message, each way.
        jitter_ms: at most so much more.
        stagger_ms: between the starts of two calls, so that they do not move in step.
        deadline_s: a call is broken off after so long.
        ca_file: certificates to trust instead of the system's.
        json_path: where the results of all calls are written; `-` for standard output.
        wav_dir: where a recording of each call is written.
        sip: call this URI over SIP and RTP instead; `url` and what belongs to it do not count.
        username: for a server that challenges; with `password`.
        password: its password.
        codecs: offered over SIP, in the order of preference.
        echo_db: the level of the line's echo beside what the caller hears; None: no echo.
        echo_ms: how much later it comes back; None: 120.
    """
    problem = _usage_problem(
        url, public_url, calls, concurrency, script, network_delay_ms, jitter_ms
    )
    if sip is not None:
        problem = problem or _sip_problem(
            sip, username, password, codecs, network_delay_ms, jitter_ms
        )
    line, flaw = _line(echo_db, echo_ms)
    problem = problem or flaw
    if problem is None and ca_file is not None and not ca_file.is_file():
        problem = f"there is no file {ca_file}"
    if problem is not None:
        print(f"voiced simulate: {problem}", file=sys.stderr)
        return 2
    try:
        tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
    except ssl.SSLError as error:
        print(f"voiced simulate: {ca_file} holds no certificates: {error}", file=sys.stderr)
        return 2
    load = Load(
        url=url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/twilio/voice",
        calls=calls,
        concurrency=concurrency,
        script=SCRIPTS[script],
        seed=seed,
        to=to,
        from_=from_,
        auth_token=auth_token,
        public_url=public_url,
        network_delay_ms=network_delay_ms,
        jitter_ms=jitter_ms,
        stagger_ms=stagger_ms,
        deadline_s=deadline_s,
        wav_dir=wav_dir,
        network=Network(tls=tls),
        line=line,
        sip=None if sip is None else _sip_target(sip, username, password, codecs),
    )
    done: list[CallResult] = []
    words = sys.stderr if json_path == STDOUT else sys.stdout

    def finished(result: CallResult) -> None:
        done.append(result)
        print(_line_of(result), file=words, flush=True)

    return_code = 0
    try:
        _try_places(wav_dir, json_path)  # better known now than after the calls
        done = trio.run(place_calls, load, finished)
    except* OSError as group:
        print(f"voiced simulate: cannot write: {group.exceptions[0]}", file=sys.stderr)
        return_code = 1
    except* KeyboardInterrupt:
        print(f"voiced simulate: interrupted, {len(done)} of {calls} calls over", file=sys.stderr)
        return_code = 1
    if json_path is not None and (done or not return_code):
        return_code |= _write_json(done, json_path)
    if done:
        print(summary(done), file=words)
    return return_code or int(not all(result.ok for result in done))


STDOUT: Final = Path("-")
"""In place of a file for the results: standard output, which then has nothing else."""


def _try_places(wav_dir: Path | None, json_path: Path | None) -> None:
    """Raises OSError where nothing could be written at the end."""
    if wav_dir is not None:
        wav_dir.mkdir(parents=True, exist_ok=True)
    if json_path not in (None, STDOUT):
        with json_path.open("a"):
            pass


def _write_json(results: Sequence[CallResult], path: Path) -> int:
    text = json.dumps([result.to_json() for result in results], indent=2) + "\n"
    try:
        if path == STDOUT:
            sys.stdout.write(text)
        else:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"voiced simulate: cannot write: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class SipTarget:
    """Whom to call over SIP, and how."""

    uri: str
    credentials: Credentials | None = None
    codecs: tuple[str, ...] = ("pcmu", "pcma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What `place_calls` does; the fields are `main`'s options."""

    url: str
    script: Script
    calls: int = 1
    concurrency: int = 1
    seed: int = 0
    to: str = "+15550100"
    from_: str = "+15550199"
    auth_token: str | None = None
    public_url: str | None = None
    network_delay_ms: float = 0
    jitter_ms: float = 0
    stagger_ms: float = 0
    deadline_s: float = 120.0
    wav_dir: Path | None = None
    network: Network = field(default_factory=Network)
    line: Line | None = None
    sip: SipTarget | None = None


async def place_calls(
    load: Load, finished: Callable[[CallResult], None] | None = None
) -> list[CallResult]:
    """Place `load.calls` calls, at most `concurrency` at a time; `finished` sees each at its end.

    Returns the results in the order in which the calls began.
    """
    results: dict[int, CallResult] = {}
    limiter = trio.CapacityLimiter(load.concurrency)

    async def place(number: int) -> None:
        try:
            result = await _place(load, number)
        finally:
            limiter.release_on_behalf_of(number)
        if load.wav_dir is not None:
            path = load.wav_dir / f"{result.call_sid}.wav"
            await trio.to_thread.run_sync(result.write_wav, path)
            result = replace(result, caller_ulaw=b"", agent_ulaw=b"")  # 16 kB for each second
        results[number] = result
        if finished is not None:
            finished(result)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(load.calls):
            await limiter.acquire_on_behalf_of(number)
            await trio.sleep_until(began + number * load.stagger_ms / 1000)
            nursery.start_soon(place, number)
    return [results[number] for number in sorted(results)]


async def _place(load: Load, number: int) -> CallResult:
    if load.sip is not None:
        return await sip_caller.call(
            load.script,
            uri=load.sip.uri,
            from_=load.from_,
            credentials=load.sip.credentials,
            codecs=load.sip.codecs,
            line=load.line,
            rng=load.seed + number,
            record=load.wav_dir is not None,
            deadline_s=load.deadline_s,
        )
    return await call(
        load.script,
        webhook_url=load.url,
        auth_token=load.auth_token,
        public_url=load.public_url,
        to=load.to,
        from_=load.from_,
        line=load.line,
        network_delay_ms=load.network_delay_ms,
        jitter_ms=load.jitter_ms,
        rng=load.seed + number,
        record=load.wav_dir is not None,
        deadline_s=load.deadline_s,
        network=load.network,
    )


def _line_of(result: CallResult) -> str:
    answers = result.answers_ms
    answered = f"answered in {max(answers):.0f} ms at most" if answers else "no answer"
    state = "ok  " if result.ok else "FAIL"
    line = f"{state} {result.call_sid} {result.duration_ms / 1000:6.1f} s  {answered}"
    return line if result.ok else f"{line}: {trouble(result)}"


def _sip_target(sip: str, username: str | None, password: str | None, codecs: str) -> SipTarget:
    credentials = Credentials(username, password) if username and password else None
    return SipTarget(sip, credentials, tuple(codecs.split(",")))


def _line(echo_db: float | None, echo_ms: int | None) -> tuple[Line | None, str | None]:
    """The callers' line, or what is wrong with it."""
    if echo_db is None:
        return None, None if echo_ms is None else "--echo-ms needs --echo-db, the echo's level"
    try:
        return Line(echo_db, DEFAULT_ECHO_MS if echo_ms is None else echo_ms), None
    except ValueError as error:
        return None, str(error)


def _sip_problem(
    sip: str,
    username: str | None,
    password: str | None,
    codecs: str,
    network_delay_ms: float,
    jitter_ms: float,
) -> str | None:
    try:
        transport = parse_address(sip).transport
    except BadMessage:
        return f"{sip!r} is no SIP URI; expected such as sip:+15550100@127.0.0.1:5060"
    if transport not in ("udp", "tcp"):
        return f"simulated callers speak SIP over UDP and TCP, not {transport}"
    if bool(username) != bool(password):
        return "--username and --password belong together"
    if not set(codecs.split(",")) <= set(sip_caller.CODEC_NAMES):
        return f"--codecs is a list of {', '.join(sip_caller.CODEC_NAMES)}, not {codecs!r}"
    if network_delay_ms or jitter_ms:
        return "--network-delay-ms and --jitter-ms are for media streams, not for --sip"
    return None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that are not closed, a port that is none
        return False


def _usage_problem(
    url: str,
    public_url: str | None,
    calls: int,
    concurrency: int,
    script: str,
    network_delay_ms: float,
    jitter_ms: float,
) -> str | None:
    if not _is_http(url):
        return f"{url!r} is no URL of a webhook; expected such as http://127.0.0.1:8080"
    if public_url is not None and not _is_http(public_url):
        return f"{public_url!r} is no URL; --public-url is the daemon's [http] public_url"
    if script not in SCRIPTS:
        return f"there is no script {script!r}; there are {', '.join(SCRIPTS)}"
    if calls < 1 or concurrency < 1:
        return "the number of calls and of concurrent calls must be at least 1"
    if network_delay_ms < 0 or jitter_ms < 0:
        return "delay and jitter must not be negative"
    return None
