from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from voiced.sip import guard as module
from voiced.sip.guard import BAN_S, BURST, RATE, Guard, LineBudget, is_scanner

STRANGER = "203.0.113.5"
TRUNK = "192.0.2.10"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fixture:
    def __init__(self, allow: Iterable[tuple[str, str]] = (("192.0.2.0/24", "carrier"),)) -> None:
        self.clock = Clock()
        self.counted: Counter[tuple[str, str]] = Counter()
        self.guard = Guard(allow, now=self.clock, count=self.count)

    def count(self, what: str, why: str) -> None:
        self.counted[what, why] += 1

    def passed(self, ip: str, times: int, size: int = 500) -> int:
        return sum(self.guard.judge(ip, size) == "pass" for _ in range(times))


def test_stranger_gets_a_burst_then_its_rate() -> None:
    fixture = Fixture()
    assert fixture.passed(STRANGER, 100) == BURST
    fixture.clock.now += 1.0
    assert fixture.passed(STRANGER, 30) == RATE
    assert fixture.counted["dropped", "flood"] == 60 + 20


def test_crowd_of_forged_sources_is_limited_as_a_whole() -> None:
    fixture = Fixture()
    fixture.guard.expect("198.51.100.1")
    crowd = [f"203.0.{number >> 8}.{number & 255}" for number in range(2000)]
    assert sum(fixture.passed(ip, 1) for ip in crowd) == module.CROWD_BURST
    assert fixture.counted == {("dropped", "crowd"): 2000 - module.CROWD_BURST}
    assert fixture.passed(TRUNK, 10) == 10
    assert fixture.passed("198.51.100.1", 10) == 10
    fixture.clock.now += 0.5
    assert sum(fixture.passed(ip, 1) for ip in crowd) == module.CROWD_RATE / 2
    assert fixture.guard.banned() == {}


def test_other_strangers_are_not_touched_by_a_flood() -> None:
    fixture = Fixture()
    fixture.passed(STRANGER, 1000)
    assert fixture.passed("203.0.113.6", 10) == 10


def test_big_datagrams_cost_more() -> None:
    fixture = Fixture()
    assert fixture.passed(STRANGER, 100, size=60_000) == 0
    assert fixture.passed("203.0.113.6", 100, size=3000) == BURST // 3


def test_allowed_sources_are_never_limited_nor_banned() -> None:
    fixture = Fixture()
    for _ in range(100):
        fixture.guard.refused(TRUNK, "malformed", "friendly-scanner")
    assert fixture.passed(TRUNK, 10_000, size=9000) == 10_000
    assert fixture.guard.banned() == {}
    assert not fixture.counted


def test_sustained_flood_bans_and_the_ban_expires() -> None:
    fixture = Fixture()
    fixture.passed(STRANGER, 1000)
    assert fixture.guard.banned() == {STRANGER: fixture.clock.now + BAN_S}
    assert fixture.counted["banned", "flood"] == 1
    fixture.clock.now += BAN_S - 0.001
    assert fixture.passed(STRANGER, 5) == 0
    fixture.clock.now += 0.001
    assert fixture.guard.banned() == {}
    assert fixture.passed(STRANGER, 5) == 5


def test_scanner_bans_itself_by_refused_requests() -> None:
    fixture = Fixture()
    for _ in range(9):
        fixture.guard.refused(STRANGER, "stranger")
    assert fixture.guard.judge(STRANGER, 400) == "pass"
    fixture.guard.refused(STRANGER, "stranger")
    assert fixture.guard.judge(STRANGER, 400) == "drop"
    assert fixture.counted == {("banned", "stranger"): 1, ("dropped", "banned"): 1}


def test_being_challenged_weighs_little() -> None:
    fixture = Fixture()
    for _ in range(39):
        fixture.guard.refused(STRANGER, "unauthenticated")
    assert fixture.guard.banned() == {}
    fixture.guard.refused(STRANGER, "unauthenticated")
    assert list(fixture.guard.banned()) == [STRANGER]


def test_slow_refusals_are_forgiven() -> None:
    fixture = Fixture()
    for _ in range(1000):
        fixture.guard.refused(STRANGER, "stranger")
        fixture.clock.now += 6.0
    assert fixture.guard.banned() == {}


def test_known_scanner_is_banned_by_its_first_refusal() -> None:
    fixture = Fixture()
    fixture.guard.refused(STRANGER, "stranger", "friendly-scanner")
    assert list(fixture.guard.banned()) == [STRANGER]
    assert fixture.counted["banned", "scanner"] == 1


@pytest.mark.parametrize(
    ("user_agent", "scanner"),
    [
        ("friendly-scanner", True),
        (" SIPVicious/0.3.3", True),
        ("sipcli/v1.8", True),
        ("Asterisk PBX 22", False),
        ("baresip v1.0.0 (x86_64/linux)", False),
        ("", False),
    ],
)
def test_scanners_by_name(user_agent: str, scanner: bool) -> None:
    assert is_scanner(user_agent) is scanner


def test_ipv6_strangers_share_the_fate_of_their_64() -> None:
    fixture = Fixture()
    for host in range(20):
        fixture.guard.refused(f"2001:db8:1:2::{host:x}", "stranger")
    assert list(fixture.guard.banned()) == ["2001:db8:1:2::/64"]
    assert fixture.passed("2001:db8:1:2:ffff::1", 5) == 0
    assert fixture.passed("2001:db8:1:3::1", 5) == 5
    assert fixture.guard.unban("2001:db8:1:2::/64")
    assert fixture.passed("2001:db8:1:2:ffff::1", 5) == 5


def test_link_local_source_with_its_zone() -> None:
    fixture = Fixture([("fe80::/10", "lan")])
    assert fixture.guard.trunk_of("fe80::1%eth0") == "lan"


def test_longest_prefix_names_the_trunk() -> None:
    fixture = Fixture(
        [("10.0.0.0/8", "lan"), ("10.1.2.3", "pbx"), ("2001:db8::/32", "six"), ("10.1.2.3", "late")]
    )
    assert fixture.guard.trunk_of("10.1.2.3") == "pbx"
    assert fixture.guard.trunk_of("10.1.2.4") == "lan"
    assert fixture.guard.trunk_of("2001:db8:5::1") == "six"
    assert fixture.guard.trunk_of("192.0.2.1") is None
    assert Fixture([]).guard.trunk_of("192.0.2.1") is None


networks = st.one_of(
    st.builds(
        lambda number, length: ipaddress.IPv4Network((number, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda number, length: ipaddress.IPv6Network((number, length), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    ),
)


@given(
    st.lists(networks, max_size=6, unique=True),
    st.ip_addresses() | networks.map(lambda network: network[-1]),
)
def test_trunk_is_that_of_the_longest_network_containing_the_address(
    allow: list[ipaddress.IPv4Network | ipaddress.IPv6Network],
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    guard = Guard([(network, str(network)) for network in allow], now=Clock())
    containing = [
        network for network in allow if network.version == address.version and address in network
    ]
    expected = max(containing, key=lambda network: network.prefixlen, default=None)
    assert guard.trunk_of(str(address)) == (str(expected) if expected else None)


def test_network_that_is_none() -> None:
    with pytest.raises(ValueError, match="carrier"):
        Guard([("carrier.example", "x")], now=Clock())


def test_new_allow_list_frees_and_strips() -> None:
    fixture = Fixture()
    fixture.guard.refused(STRANGER, "stranger", "sipvicious")
    fixture.guard.refused("2001:db8::1", "stranger", "sipvicious")
    fixture.guard.refused("198.51.100.9", "stranger", "sipvicious")
    assert fixture.passed(TRUNK, 100) == 100
    fixture.guard.set_allow([(STRANGER, "new"), ("2001:db8::/48", "six")])
    assert list(fixture.guard.banned()) == ["198.51.100.9"]
    assert fixture.guard.trunk_of(STRANGER) == "new"
    assert fixture.guard.trunk_of(TRUNK) is None
    assert fixture.passed(TRUNK, 100) == BURST


def test_destinations_of_our_own_requests_may_answer() -> None:
    fixture = Fixture()
    fixture.guard.expect(STRANGER)
    fixture.guard.refused(STRANGER, "malformed", "friendly-scanner")
    assert fixture.passed(STRANGER, 1000) == 1000
    assert fixture.guard.trunk_of(STRANGER) is None
    fixture.clock.now += module.EXPECTED_S
    assert fixture.passed(STRANGER, 1000) == BURST


def test_expected_source_that_was_banned_before() -> None:
    fixture = Fixture()
    fixture.passed(STRANGER, 1000)
    fixture.guard.expect(STRANGER)
    assert fixture.passed(STRANGER, 1000) == 1000


def test_destinations_have_a_bound() -> None:
    fixture = Fixture()
    for number in range(module.MAX_EXPECTED + 1):
        fixture.guard.expect(f"10.0.{number >> 8}.{number & 255}")
    assert fixture.passed("10.0.0.0", 100) == BURST
    assert fixture.passed("10.0.0.1", 100) == 100


def test_tables_stay_bounded_under_forged_sources() -> None:
    clock = Clock()
    guard = Guard([("10.0.0.0/8", "lan")], now=clock, max_sources=100)
    for number in range(1000):
        for ip in (f"203.0.{number >> 8}.{number & 255}", f"2001:db8:{number:x}::1"):
            guard.judge(ip, 100)
            guard.refused(ip, "stranger", "sipvicious")
        guard.judge(f"10.0.{number >> 8}.{number & 255}", 100)
    assert len(guard.banned()) == 100
    sizes = [
        len(table)
        for table in (getattr(guard, name) for name in ("_sources", "_bans", "_numbers", "_trunks"))
    ]
    assert max(sizes) <= 100


def test_unban() -> None:
    fixture = Fixture()
    assert not fixture.guard.unban(STRANGER)
    fixture.passed(STRANGER, 1000)
    assert fixture.guard.unban(STRANGER)
    assert fixture.passed(STRANGER, 5) == 5


def test_flood_is_two_lines_and_a_summary() -> None:
    fixture = Fixture()
    with structlog.testing.capture_logs() as lines:
        fixture.passed(STRANGER, 5000)
        assert [line["event"] for line in lines] == ["a stranger sends too much", "source banned"]
        fixture.guard.report()
        fixture.guard.report()
    assert len(lines) == 3
    assert lines[2]["flood"] + lines[2]["banned"] == 5000 - BURST


def test_many_flooding_sources_cannot_flood_the_log() -> None:
    fixture = Fixture()
    with structlog.testing.capture_logs() as lines:
        for number in range(500):
            fixture.passed(f"203.0.{number >> 8}.{number & 255}", 300)
        assert len(lines) == module.LINES_PER_MINUTE
        fixture.guard.report()
    assert lines[-1]["lines_withheld"] == 1000 - module.LINES_PER_MINUTE
    assert lines[-1]["sources_banned"] == 500


def test_report_forgets_bans_that_are_over() -> None:
    fixture = Fixture()
    fixture.passed(STRANGER, 1000)
    fixture.clock.now += BAN_S
    with structlog.testing.capture_logs() as lines:
        fixture.guard.report()
    assert lines[0]["sources_banned"] == 0


def test_line_budget() -> None:
    budget = LineBudget(2)
    assert [budget.take() for _ in range(4)] == [True, True, False, False]
    assert budget.refill() == 2
    assert budget.take()
    assert budget.refill() == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["judge", "refuse", "wait"]),
            st.sampled_from([STRANGER, "203.0.113.6", TRUNK, "2001:db8::1", "2001:db8::2"]),
            st.floats(0, 700),
        ),
        max_size=60,
    )
)
def test_whatever_happens(steps: list[tuple[str, str, float]]) -> None:
    """The trunk always passes; whoever is banned does not; nobody stays banned for ever."""
    fixture = Fixture()
    for what, ip, seconds in steps:
        match what:
            case "judge":
                key = ip if ":" not in ip else "2001:db8::/64"
                banned = key in fixture.guard.banned()
                verdict = fixture.guard.judge(ip, 500)
                assert verdict == "pass" if ip == TRUNK else not banned or verdict == "drop"
            case "refuse":
                fixture.guard.refused(ip, "stranger")
            case _:
                fixture.clock.now += seconds
    fixture.clock.now += BAN_S
    assert fixture.guard.banned() == {}
    assert fixture.guard.judge(STRANGER, 500) == "pass"


def test_an_address_stands_for_its_network() -> None:
    guard = Guard([("192.0.2.7/24", "carrier")], now=lambda: 0.0)
    assert guard.trunk_of("192.0.2.99") == "carrier"
    assert guard.trunk_of("192.0.3.7") is None
