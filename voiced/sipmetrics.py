"""What SIP and RTP have to tell Prometheus, counted by their owners and made when it asks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from voiced.sipservice import SipService

__all__ = ["SipMetrics"]


class SipMetrics(Collector):
    """The figures of a running `SipService`."""

    def __init__(self, sip: SipService) -> None:
        self._sip = sip

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client's Collector."""
        sip = self._sip
        endpoint = sip.endpoint.statistics()
        messages = CounterMetricFamily("voiced_sip_messages", "SIP messages", labels=["direction"])
        messages.add_metric(["received"], endpoint.received)
        messages.add_metric(["sent"], endpoint.sent)
        yield messages
        yield GaugeMetricFamily(
            "voiced_sip_sessions",
            "SIP sessions alive, those that end included",
            sip.agent.sessions,
        )
        connections = GaugeMetricFamily(
            "voiced_sip_connections", "TCP and TLS connections", labels=["side"]
        )
        connections.add_metric(["accepted"], endpoint.accepted)
        connections.add_metric(["opened"], endpoint.opened)
        yield connections
        yield GaugeMetricFamily(
            "voiced_sip_banned", "Sources that are banned", len(sip.guard.banned())
        )
        registered = GaugeMetricFamily(
            "voiced_sip_registered", "1 while the trunk's registrar knows us", labels=["trunk"]
        )
        reachable = GaugeMetricFamily(
            "voiced_sip_reachable", "1 while the trunk answers OPTIONS", labels=["trunk"]
        )
        for state in sip.trunks:
            if state.registration is not None:
                registered.add_metric([state.name], float(state.registration.registered))
            if state.reachable is not None:
                reachable.add_metric([state.name], float(state.reachable))
        yield registered
        yield reachable
        buckets, total = [], 0
        for bound, count in sip.hub.lateness():
            total += count
            buckets.append(("+Inf" if math.isinf(bound) else f"{bound / 1000:g}", float(total)))
        if buckets:
            yield HistogramMetricFamily(
                "voiced_rtp_lateness_seconds",
                "How late RTP packets left, against the ideal clock",
                buckets=buckets,
                sum_value=None,
            )
