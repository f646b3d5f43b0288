"""Who may use the carrier-facing listener: the carrier by its signature, else loopback alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import structlog

from voiced.config.types import Http, Twilio
from voiced.twilio.signature import SignatureValidator
from voiced.twilio.tokens import MEDIA_PATH

__all__ = ["SIGNATURE_HEADER", "Gate", "Request", "base_url", "client_address", "joined"]

SIGNATURE_HEADER = "x-twilio-signature"

# What a proxy adds. Seen from a peer that is no trusted proxy, they say that the peer is a proxy
# all the same (a tunnel, say), so that its own loopback address tells nothing about the client.
_PROXY_HEADERS = ("x-forwarded-for", "forwarded", "x-real-ip", "via")

_Address = IPv4Address | IPv6Address
_log = structlog.get_logger("voiced.web")


@dataclass(frozen=True, slots=True)
class Request:
    """What a request is judged by. Header names are lower case; `peer` is the socket's other end.

    `target` is path and query as received. `parameters` are those of a form, decoded; `body` is
    given instead when the body was no form.
    """

    target: str
    headers: Mapping[str, str]
    peer: str | None
    parameters: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


class Gate:
    """Judges requests by the configuration.

    With an auth token every request must be signed, unless `validate_signature` is off. Without
    one only clients on loopback are served, whatever `validate_signature` says.

    `refused` is called with ("webhook" or "stream", why) for each refusal, to count it. Raises
    ValueError for a `trusted_proxies` entry that is no address, and for an auth token without a
    `public_url`.
    """

    def __init__(
        self,
        http: Http,
        twilio: Twilio,
        refused: Callable[[str, str], None] = lambda what, why: None,
    ) -> None:
        self._refused = refused
        self._proxies = tuple(ip_network(each, strict=False) for each in http.trusted_proxies)
        self._loopback_only = not twilio.auth_token
        self._validator: SignatureValidator | None = None
        if twilio.auth_token and twilio.validate_signature:
            if not http.public_url:
                raise ValueError("[twilio] auth_token needs [http] public_url, the signed address")
            tokens = [twilio.auth_token, twilio.auth_token_secondary]
            self._validator = SignatureValidator(http.public_url, [each for each in tokens if each])

    def webhook(self, request: Request) -> bool:
        """Whether a webhook or status callback is to be served; a refusal is logged and counted."""
        if self._validator is None:
            return self._judge("webhook", request, None)
        signature = request.headers.get(SIGNATURE_HEADER)
        genuine = self._validator.webhook(
            request.target, request.parameters, signature, request.body
        )
        return self._judge("webhook", request, genuine)

    def handshake(self, request: Request) -> bool:
        """Whether a stream's upgrade request is to be served; the token is judged elsewhere."""
        if self._validator is None:
            return self._judge("stream", request, None)
        signature = request.headers.get(SIGNATURE_HEADER)
        return self._judge("stream", request, self._validator.handshake(request.target, signature))

    def _judge(self, what: str, request: Request, genuine: bool | None) -> bool:
        """Judge by the signature, or where there is none to check (None) by the client."""
        client = client_address(request.peer, request.headers, self._proxies)
        why = None
        if genuine is not None:
            if not genuine:
                missing = not request.headers.get(SIGNATURE_HEADER)
                why = "no signature" if missing else "wrong signature"
        elif self._loopback_only and (client is None or not client.is_loopback):
            why = "no auth token"
        if why is None:
            return True
        self._refused(what, why)
        path = request.target.partition("?")[0]
        if what == "stream":
            path = MEDIA_PATH  # the rest of it is the token, a secret
        _log.warning(
            f"{what} refused",
            why=why,
            path=path[:200],
            client=str(client or "unknown"),
            peer=request.peer,
            remedy=_REMEDY[why],
        )
        return False


_REMEDY = {
    "no signature": "only the carrier may call this; a proxy must pass X-Twilio-Signature on",
    "wrong signature": "check [twilio] auth_token, and that [http] public_url is the address "
    "configured at the carrier, without its path",
    "no auth token": "set [twilio] auth_token and [http] public_url; without them only clients on "
    "loopback are served, and none through a proxy that is not in [http] trusted_proxies",
}


def joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Make header fields the mapping that `Request` has, names in lower case.

    A field that repeats is one list, cut by commas (RFC 9110 section 5.3): were only one of several
    X-Forwarded-For lines kept, a client might choose which.
    """
    headers: dict[str, str] = {}
    for name, value in fields:
        name = name.lower()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def client_address(
    peer: str | None,
    headers: Mapping[str, str],
    proxies: Iterable[IPv4Network | IPv6Network] = (),
) -> _Address | None:
    """Find the address of the client behind the trusted `proxies`; None when nobody can tell.

    X-Forwarded-For is believed from its right end for as long as trusted proxies wrote it.
    """
    trusted = tuple(proxies)
    address = _address(peer)
    if address is None:
        return None
    if not _within(address, trusted):
        return None if any(name in headers for name in _PROXY_HEADERS) else address
    hops = [hop for hop in headers.get("x-forwarded-for", "").split(",") if hop.strip()]
    for hop in reversed(hops):
        address = _address(hop)
        if address is None or not _within(address, trusted):
            return address
    # Every hop was one of ours, so the first of them asked. Without a hop the proxy keeps its
    # clients to itself, and whom it asks for cannot be known.
    return address if hops else None


def base_url(http: Http, port: int | None = None) -> str:
    """Give the address that the carrier is told: `public_url`, else where `[http] listen` listens.

    `port` is the one really bound, where the configured one is 0. No slash at its end.
    """
    if http.public_url:
        return http.public_url.rstrip("/")
    host, _, configured = http.listen.rpartition(":")
    if host in ("", "0.0.0.0", "[::]", "*"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    scheme = "https" if http.tls_cert else "http"
    return f"{scheme}://{host}:{port or configured}"


def _address(text: str | None) -> _Address | None:
    try:
        address = ip_address((text or "").strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: _Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
