"""`voiced simulate`: many callers against a daemon, a line for each, a table at the end."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import trio

from voiced.simulate.caller import call
from voiced.simulate.client import Network
from voiced.simulate.result import CallResult
from voiced.simulate.script import SCRIPTS, Script

__all__ = ["Load", "main", "place_calls", "summary"]

_FAILURES_SHOWN = 5
_VIOLATIONS_SHOWN = 3


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
        json_path: where the results of all calls are written.
        wav_dir: where a recording of each call is written.
    """
    problem = _usage_problem(url, calls, concurrency, script, network_delay_ms, jitter_ms)
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
    )
    try:
        if wav_dir is not None:
            wav_dir.mkdir(parents=True, exist_ok=True)
        results = trio.run(place_calls, load, _finished)
        if json_path is not None:
            document = [result.to_json() for result in results]
            json_path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except* OSError as group:
        print(f"voiced simulate: cannot write: {group.exceptions[0]}", file=sys.stderr)
        return_code = 1
    except* KeyboardInterrupt:
        return_code = 1
    else:
        print(summary(results))
        return_code = 0 if all(result.ok for result in results) else 1
    return return_code


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
            result = await call(
                load.script,
                webhook_url=load.url,
                auth_token=load.auth_token,
                public_url=load.public_url,
                to=load.to,
                from_=load.from_,
                network_delay_ms=load.network_delay_ms,
                jitter_ms=load.jitter_ms,
                rng=load.seed + number,
                record=load.wav_dir is not None,
                deadline_s=load.deadline_s,
                network=load.network,
            )
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


def summary(results: Sequence[CallResult]) -> str:
    """Write the closing table: how many went well, and the spread of every figure."""
    well = sum(result.ok for result in results)
    rows: list[tuple[str, Sequence[float | None]]] = [
        ("webhook answered", [r.webhook_ms for r in results]),
        ("stream open", [r.setup_ms for r in results]),
        ("first agent audio", [r.first_audio_ms for r in results]),
        ("answer after speech", [ms for r in results for ms in r.answers_ms]),
        ("barge-in to clear", [i.reaction_ms for r in results for i in r.interruptions]),
        ("gaps", [gap.duration_ms for r in results for gap in r.gaps]),
        ("simulation lag, worst", [r.lag_ms for r in results]),
    ]
    lines = [f"{'milliseconds':<24}{'count':>7}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}"]
    for name, values in rows:
        known = sorted(value for value in values if value is not None)
        if known:
            spread = "".join(f"{percentile(known, p):>9.1f}" for p in (50, 90, 99, 100))
            lines.append(f"{name:<24}{len(known):>7}{spread}")
    interruptions = [each for result in results for each in result.interruptions]
    clean = sum(each.clean for each in interruptions)
    lines += [
        "",
        f"calls that went well  {well} of {len(results)}",
        f"clean barge-ins       {clean} of {len(interruptions)}",
        f"protocol violations   {sum(result.violation_count for result in results)}",
    ]
    troubled = [result for result in results if not result.ok]
    lines += [f"  {result.call_sid}: {trouble(result)}" for result in troubled[:_FAILURES_SHOWN]]
    if len(troubled) > _FAILURES_SHOWN:
        lines.append(f"  and {len(troubled) - _FAILURES_SHOWN} more")
    return "\n".join(lines)


def trouble(result: CallResult) -> str:
    """Say in one line what was not well with a call; empty when all was."""
    parts = [result.failure] if result.failure else []
    if result.violation_count:
        first = [f"{each.code} {each.text}" for each in result.violations[:_VIOLATIONS_SHOWN]]
        parts.append(f"{result.violation_count} protocol violations ({'; '.join(first)})")
    if result.gaps:
        longest = max(gap.duration_ms for gap in result.gaps)
        parts.append(f"{len(result.gaps)} gaps in the agent's audio, the longest {longest:.0f} ms")
    if result.lost_frames:
        parts.append(f"{result.lost_frames} frames the server was too slow to take")
    for each in result.interruptions:
        if not each.clean:
            reaction = "never" if each.reaction_ms is None else f"after {each.reaction_ms:.0f} ms"
            parts.append(
                f"barge-in at {each.start_ms:.0f} ms: cleared {reaction}, "
                f"{each.stale_ms:.0f} ms of stale audio"
            )
    return ", ".join(parts)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Pick the nearest-rank percentile of a non-empty ascending sequence."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def _finished(result: CallResult) -> None:
    answers = result.answers_ms
    answered = f"answered in {max(answers):.0f} ms at most" if answers else "no answer"
    state = "ok  " if result.ok else "FAIL"
    line = f"{state} {result.call_sid} {result.duration_ms / 1000:6.1f} s  {answered}"
    print(line if result.ok else f"{line}: {trouble(result)}", flush=True)


def _usage_problem(
    url: str,
    calls: int,
    concurrency: int,
    script: str,
    network_delay_ms: float,
    jitter_ms: float,
) -> str | None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{url!r} is no URL of a webhook; expected such as http://127.0.0.1:8080"
    if script not in SCRIPTS:
        return f"there is no script {script!r}; there are {', '.join(SCRIPTS)}"
    if calls < 1 or concurrency < 1:
        return "the number of calls and of concurrent calls must be at least 1"
    if network_delay_ms < 0 or jitter_ms < 0:
        return "delay and jitter must not be negative"
    return None
