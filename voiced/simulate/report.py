"""What the results of many simulated calls come to, in words and a table."""

from __future__ import annotations

from collections.abc import Sequence

from voiced.simulate.result import CallResult

__all__ = ["percentile", "summary", "trouble"]

_FAILURES_SHOWN = 5
_VIOLATIONS_SHOWN = 3


def summary(results: Sequence[CallResult]) -> str:
    """Write the closing table: how many went well, and the spread of every figure."""
    well = sum(result.ok for result in results)
    rows: list[tuple[str, Sequence[float | None]]] = [
        ("webhook answered", [r.webhook_ms for r in results]),
        ("call set up", [r.setup_ms for r in results]),
        ("first agent audio", [r.first_audio_ms for r in results]),
        ("answer after speech", [ms for r in results for ms in r.answers_ms]),
        ("barge-in to silence", [i.reaction_ms for r in results for i in r.interruptions]),
        ("gaps", [gap.duration_ms for r in results for gap in r.gaps]),
        *_sip_rows(results),
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
    streams = [result.rtp for result in results if result.rtp is not None]
    if streams:
        sent, received = sum(r.sent for r in streams), sum(r.received for r in streams)
        lost, repeated = sum(r.lost for r in streams), sum(r.duplicated for r in streams)
        lines += [
            f"RTP packets           {sent} sent, {received} received, {lost} lost, "
            f"{repeated} repeated, {sum(r.reordered for r in streams)} out of order, "
            f"{sum(r.bursts for r in streams)} in bursts"
        ]
    troubled = [result for result in results if not result.ok]
    lines += [f"  {result.call_sid}: {trouble(result)}" for result in troubled[:_FAILURES_SHOWN]]
    if len(troubled) > _FAILURES_SHOWN:
        lines.append(f"  and {len(troubled) - _FAILURES_SHOWN} more")
    return "\n".join(lines)


def _sip_rows(results: Sequence[CallResult]) -> list[tuple[str, Sequence[float | None]]]:
    calls = [r.sip for r in results if r.sip is not None]
    streams = [r.rtp for r in results if r.rtp is not None]
    late = [r.lateness_ms for r in streams if r.lateness_ms is not None]
    return [
        ("INVITE to ringing", [each.ringing_ms for each in calls]),
        ("INVITE to first packet", [each.first_audio_ms for each in calls]),
        ("INVITE to first word", [each.first_speech_ms for each in calls]),
        ("RFC 3550 jitter", [each.jitter_ms for each in streams]),
        ("pacing lateness p50", [each.p50 for each in late]),
        ("pacing lateness p99", [each.p99 for each in late]),
        ("pacing lateness p99.9", [each.p999 for each in late]),
        ("pacing lateness max", [each.max for each in late]),
        ("longest gap of packets", [each.longest_gap_ms for each in streams]),
        ("echo of own frames", [each.echo_ms.p50 for each in streams if each.echo_ms]),
    ]


def trouble(result: CallResult) -> str:
    """Say in one line what was not well with a call; empty when all was."""
    parts = [result.failure] if result.failure else []
    if result.violation_count:
        first = [f"{each.code} {each.text}" for each in result.violations[:_VIOLATIONS_SHOWN]]
        parts.append(f"{result.violation_count} protocol violations ({'; '.join(first)})")
    if result.gaps:
        longest = max(gap.duration_ms for gap in result.gaps)
        gaps = "a gap" if len(result.gaps) == 1 else f"{len(result.gaps)} gaps"
        parts.append(f"{gaps} in the agent's audio, the longest {longest:.0f} ms")
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
