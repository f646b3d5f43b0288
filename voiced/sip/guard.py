"""Who may speak SIP to us at all: judged by source address, before anything is parsed.

Every public SIP port is scanned all day. A stranger's datagram therefore has to cost less than
parsing it would: a dictionary look-up and a token bucket decide, and a source whose requests are
refused again and again is banned for a while. Sources of the trunks' allow lists, and those that
we have sent requests to, are neither limited nor banned.

What a refused stranger is told, nothing or 403, is decided by the policy above, which then says so
by `Guard.refused`; a datagram that is dropped here is never answered (RFC 3261 asks for no answer
to what is not a valid request, and an answer would tell a scanner that somebody is at home).

Source addresses of UDP can be forged, so that a ban is no proof of anything: it is short, it
touches nobody on an allow list, and every table here has a bound.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Literal

import structlog

__all__ = ["SCANNERS", "WEIGHTS", "Guard", "LineBudget", "is_scanner"]

_log = structlog.get_logger("voiced.sip.guard")

Verdict = Literal["pass", "drop"]
Network = IPv4Network | IPv6Network

RATE: Final = 10.0
"""Datagrams (of up to `CHARGE` bytes) a second that a stranger may send for long."""

BURST: Final = 40.0
"""Those that it may send at once: a call that is set up, authenticated and torn down takes ten."""

CROWD_RATE: Final = 200.0
"""Datagrams a second of all strangers together, forged sources being free: parsing and refusing
these takes some 5 % of a core."""

CROWD_BURST: Final = 400.0
"""Those at once: ten strangers' bursts."""

CHARGE: Final = 1500
"""Bytes that one token pays for: a big datagram costs its parsing time."""

BAN_SCORE: Final = 10.0
"""The score that bans. A refused INVITE that its sender repeats until timer B has seven copies."""

FORGIVEN_PER_S: Final = BAN_SCORE / 60
"""How fast a score sinks: what is refused less than ten times a minute is never banned."""

BAN_S: Final = 600.0
"""Seconds of a ban. Scanners move on in minutes, and a forged source gets its address back."""

EXPECTED_S: Final = 3600.0
"""Seconds for which a destination of our own requests is expected to send to us."""

MAX_SOURCES: Final = 4096
"""Strangers remembered, about 1 MB; forged sources in greater number push each other out."""

MAX_EXPECTED: Final = 1024
"""Destinations remembered: more than the registrars and proxies that a process speaks to."""

LINES_PER_MINUTE: Final = 10
"""Log lines about single sources; what is beyond is in the summary's numbers."""

WEIGHTS: Final[Mapping[str, float]] = {
    "stranger": 1.0,
    "malformed": 2.0,
    "credentials": 2.0,
    "unauthenticated": 0.25,  # challenged, as the first request of everybody is (RFC 3261 sec. 22)
    "flood": 0.05,  # per datagram beyond the rate: 200 of them ban, which is no burst any more
}
"""What one refusal adds to a source's score; other reasons add 1."""

SCANNERS: Final = (
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sundayddr",
    "sip-scan",
    "sipscan",
    "sipcli",
    "siparmyknife",
    "sipsak",
    "smap",
    "iwar",
    "vaxsipuseragent",
    "pplsip",
    "gulp",
    "sipptk",
    "vaxasip",
)
"""What scanners call themselves in User-Agent, lower case: one refused request of theirs bans."""


def is_scanner(user_agent: str) -> bool:
    """Whether a User-Agent header begins like that of a known scanner (many add a version)."""
    return user_agent.strip().lower().startswith(SCANNERS)


class LineBudget:
    """Log lines that an attacker can cause, per period: `take` until `refill`."""

    __slots__ = ("_left", "_lines", "withheld")

    def __init__(self, lines: int = LINES_PER_MINUTE) -> None:
        self._lines = self._left = lines
        self.withheld = 0

    def take(self) -> bool:
        """Whether one more line may be written; else it is counted in `withheld`."""
        if self._left <= 0:
            self.withheld += 1
            return False
        self._left -= 1
        return True

    def refill(self) -> int:
        """Begin a period; returns the lines withheld in the last one."""
        withheld, self.withheld, self._left = self.withheld, 0, self._lines
        return withheld


class _Source:
    __slots__ = ("at", "score", "scored_at", "slowed", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.at = now
        self.score = 0.0
        self.scored_at = now
        self.slowed = False  # its first drop has been logged


class Guard:
    """The doorkeeper. Synchronous, without I/O; `now` is a monotonic clock in seconds.

    `allow` names networks (`"192.0.2.0/24"`, or a single address) and their trunk; of several that
    contain a source the longest prefix wins. IPv6 strangers are told apart by their /64, because
    that is what one host gets (RFC 4291 section 2.5.1) and can use up address by address.

    `count` is called with ("banned", why) per ban and ("dropped", why) per dropped datagram: why is
    "banned", "flood" (of one source) or "crowd" (of all strangers together). `report` is to be
    called once a minute.
    """

    def __init__(
        self,
        allow: Iterable[tuple[str | Network, str]] = (),
        *,
        now: Callable[[], float],
        count: Callable[[str, str], None] = lambda what, why: None,
        rate: float = RATE,
        burst: float = BURST,
        ban_score: float = BAN_SCORE,
        ban_s: float = BAN_S,
        max_sources: int = MAX_SOURCES,
    ) -> None:
        """Raises ValueError for a network that is none."""
        self._now = now
        self._count = count
        self._rate = rate
        self._burst = burst
        self._ban_score = ban_score
        self._ban_s = ban_s
        self._max = max_sources
        self._crowd = CROWD_BURST  # tokens for all strangers together
        self._crowd_at = now()
        self._allow: list[tuple[Network, str]] = []
        # The same for quick look-ups: (version, bits below the prefix) and the trunk by prefix.
        self._by_prefix: list[tuple[int, int, dict[int, str]]] = []
        self._trunks: OrderedDict[str, str] = OrderedDict()  # by address, found in _allow
        self._expected: OrderedDict[str, float] = OrderedDict()  # by address, until when
        self._sources: OrderedDict[str | int, _Source] = OrderedDict()
        self._bans: OrderedDict[str | int, float] = OrderedDict()  # until when; oldest first
        self._numbers: OrderedDict[str, int] = OrderedDict()  # IPv6 addresses as numbers
        self._dropped: Counter[str] = Counter()
        self._lines = LineBudget()
        self.set_allow(allow)

    def set_allow(self, allow: Iterable[tuple[str | Network, str]]) -> None:
        """Put new allow lists in force; bans of sources that are now allowed end."""
        # An address of a network may stand for it, as in "192.0.2.7/24".
        networks = [(ip_network(network, strict=False), trunk) for network, trunk in allow]
        self._allow = networks
        lengths: dict[tuple[int, int], dict[int, str]] = {}
        for network, trunk in networks:
            below = network.max_prefixlen - network.prefixlen
            trunks = lengths.setdefault((network.version, below), {})
            trunks.setdefault(int(network.network_address) >> below, trunk)
        self._by_prefix = [(*key, lengths[key]) for key in sorted(lengths)]  # longest first
        self._trunks.clear()
        self._sources.clear()  # a known stranger is not looked up again
        for key in list(self._bans):
            if self._is_allowed(key):
                del self._bans[key]

    def judge(self, source_ip: str, size: int) -> Verdict:
        """Whether a datagram of `size` bytes from `source_ip` is worth parsing."""
        if source_ip in self._trunks:
            return "pass"
        key = self._key(source_ip) if ":" in source_ip else source_ip
        now = self._now()
        if self._bans:
            until = self._bans.get(key)
            if until is not None:
                if until > now:
                    if self._is_expected(source_ip, now):
                        return "pass"
                    self._dropped["banned"] += 1
                    self._count("dropped", "banned")
                    return "drop"
                del self._bans[key]
        source = self._sources.get(key)
        if source is None:
            if self.trunk_of(source_ip) is not None:
                return "pass"
            source = self._remember(key, now)
        else:
            self._sources.move_to_end(key)
            source.tokens = min(self._burst, source.tokens + (now - source.at) * self._rate)
            source.at = now
        charge = 1 + size // CHARGE
        if source.tokens >= charge:
            source.tokens -= charge
            tokens = min(CROWD_BURST, self._crowd + (now - self._crowd_at) * CROWD_RATE)
            self._crowd_at = now
            if tokens >= charge:
                self._crowd = tokens - charge
                return "pass"
            self._crowd = tokens
            if self._is_expected(source_ip, now):
                return "pass"
            self._dropped["crowd"] += 1
            self._count("dropped", "crowd")  # no blame: it is not this source that is too many
            return "drop"
        if self._is_expected(source_ip, now):
            return "pass"
        self._dropped["flood"] += 1
        self._count("dropped", "flood")
        if not source.slowed:
            source.slowed = True
            if self._lines.take():
                _log.warning("a stranger sends too much", source=_shown(key))
        self._blame(key, source, now, "flood", WEIGHTS["flood"])
        return "drop"

    def refused(self, source_ip: str, why: str, user_agent: str | None = None) -> None:
        """A request of `source_ip` was refused: raise its score, which may ban it.

        `why` is a fixed short word: one of `WEIGHTS`, or another, which weighs 1. A `user_agent`
        that is a scanner's bans at once.
        """
        now = self._now()
        if self.trunk_of(source_ip) is not None or self._is_expected(source_ip, now):
            return
        key = self._key(source_ip)
        until = self._bans.get(key)
        if until is not None and until > now:
            return  # the rest of what was on the way when it was banned
        weight = WEIGHTS.get(why, 1.0)
        if user_agent is not None and is_scanner(user_agent):
            why, weight = "scanner", self._ban_score
        source = self._sources.get(key) or self._remember(key, now)
        self._blame(key, source, now, why, weight)

    def expect(self, ip: str) -> None:
        """We send requests to `ip`: what comes from there is neither limited nor banned.

        Otherwise a registrar that is on no allow list could be banned by forged datagrams, and
        its answers to us lost. It is not thereby a trunk: `trunk_of` stays as it was. The policy
        may do the same for a source that has shown good credentials.
        """
        if ip in self._trunks:
            return
        self._expected[ip] = self._now() + EXPECTED_S
        self._expected.move_to_end(ip)
        if len(self._expected) > MAX_EXPECTED:
            self._expected.popitem(last=False)

    def trunk_of(self, ip: str) -> str | None:
        """The trunk whose allow list has `ip`."""
        trunk = self._trunks.get(ip)
        if trunk is not None or not self._by_prefix:
            return trunk
        version, number = (6, self._number(ip)) if ":" in ip else (4, int(IPv4Address(ip)))
        for network_version, below, trunks in self._by_prefix:
            if network_version == version:
                trunk = trunks.get(number >> below)
                if trunk is not None:
                    if len(self._trunks) >= self._max:
                        self._trunks.popitem(last=False)
                    self._trunks[ip] = trunk
                    break
        return trunk

    def banned(self) -> Mapping[str, float]:
        """Who is banned (an IPv4 address, an IPv6 /64 network) until when, on the clock `now`."""
        now = self._now()
        return {_shown(key): until for key, until in self._bans.items() if until > now}

    def unban(self, ip: str) -> bool:
        """End the ban of an address, or of the network that `banned` names; False: was none."""
        key = self._key(ip.removesuffix("/64"))
        self._sources.pop(key, None)
        return self._bans.pop(key, None) is not None

    def report(self) -> None:
        """Log what was dropped since the last report, in one line; forget bans that are over."""
        now = self._now()
        for key in [key for key, until in self._bans.items() if until <= now]:
            del self._bans[key]
        withheld = self._lines.refill()
        if self._dropped:
            _log.warning(
                "dropped datagrams of strangers",
                **self._dropped,
                sources_banned=len(self._bans),
                lines_withheld=withheld,
            )
            self._dropped.clear()

    def _remember(self, key: str | int, now: float) -> _Source:
        if len(self._sources) >= self._max:
            self._sources.popitem(last=False)
        source = self._sources[key] = _Source(self._burst, now)
        return source

    def _blame(self, key: str | int, source: _Source, now: float, why: str, weight: float) -> None:
        forgiven = (now - source.scored_at) * FORGIVEN_PER_S
        source.score = max(0.0, source.score - forgiven) + weight
        source.scored_at = now
        if source.score < self._ban_score:
            return
        self._sources.pop(key, None)  # after the ban it begins anew
        if len(self._bans) >= self._max:
            self._bans.popitem(last=False)  # the one that has lasted longest
        self._bans[key] = now + self._ban_s
        self._bans.move_to_end(key)
        self._count("banned", why)
        if self._lines.take():
            _log.warning("source banned", source=_shown(key), why=why, seconds=self._ban_s)

    def _is_expected(self, ip: str, now: float) -> bool:
        until = self._expected.get(ip)
        if until is None:
            return False
        if until > now:
            return True
        del self._expected[ip]
        return False

    def _is_allowed(self, key: str | int) -> bool:
        prefix = _network(key)
        return any(
            prefix.version == network.version and prefix.overlaps(network)
            for network, _ in self._allow
        )

    def _key(self, ip: str) -> str | int:
        """IPv4: the address itself; IPv6: the number of its /64."""
        return self._number(ip) >> 64 if ":" in ip else ip

    def _number(self, ip: str) -> int:
        number = self._numbers.get(ip)
        if number is None:
            # ipaddress needs 2 us, too long to pay for every datagram of one source.
            number = int(IPv6Address(ip))
            if len(self._numbers) >= self._max:
                self._numbers.popitem(last=False)
            self._numbers[ip] = number
        return number


def _network(key: str | int) -> Network:
    return IPv6Network((key << 64, 64)) if isinstance(key, int) else IPv4Network(key)


def _shown(key: str | int) -> str:
    return key if isinstance(key, str) else str(_network(key))
