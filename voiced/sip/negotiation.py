"""Offer and answer of one audio stream in one dialog (RFC 3264, RFC 6337).

What it decides:

- An answer takes the first of our codecs in the offered order, and that one only, so that neither
  side changes codec in mid-stream; a re-offer that still has the codec in use keeps it. The order
  of our own list counts in our offers alone.
- The first audio section that can be used is taken; every other section is answered in its place
  with port 0.
- A re-offer of ours repeats what stands, payload types included, so that with nothing changed the
  version in `o=` stays the same; `full` adds all else that we can do, for a peer that asks for an
  offer (an INVITE without a body) to pass on to somebody else.
- SRTP `off`: RTP/AVP, and keys offered beside it are not looked at. `required`: we offer RTP/SAVP.
  `optional`: we offer RTP/AVP with keys, the opportunistic form of RFC 8643, which a peer without
  SRTP answers without keys. As answerer, `optional` and `required` take keys under any RTP profile
  and answer under the same; `required` takes nothing without keys. DTLS is not spoken.
- Our key stays for as long as the peer's stays, and changes with it: a peer that changes its key
  begins both directions anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from voiced.sip.agreement import (
    NotAcceptable,
    agree,
    answered_keys,
    check_address,
    choose_codec,
    choose_crypto,
    direction_of,
    flags,
)
from voiced.sip.crypto import Crypto, SrtpKeys, new_key
from voiced.sip.errors import SipError
from voiced.sip.media import (
    CODECS,
    G722,
    PCMA,
    PCMU,
    Agreed,
    Codec,
    Direction,
    LocalMedia,
    RemoteAudio,
    packet_time,
    read_audio,
)
from voiced.sip.own_audio import OwnAudio, Srtp, initial, widened, write
from voiced.sip.sdp import Line, Media, SdpError, SessionDescription, parse

__all__ = [
    "CODECS",
    "G722",
    "PCMA",
    "PCMU",
    "Agreed",
    "Codec",
    "Direction",
    "LocalMedia",
    "Negotiator",
    "NotAcceptable",
    "Srtp",
    "SrtpKeys",
]


@dataclass(frozen=True, slots=True)
class _Session:
    """Where the last completed exchange has led to."""

    agreed: Agreed | None = None
    ours: OwnAudio | None = None
    sections: tuple[Media, ...] = ()  # of the offer in that exchange
    wanted: Direction = "sendrecv"  # what we would do if the peer let us


@dataclass(slots=True)
class _Offer:
    """An offer of ours; kept after its answer, since each fork of an INVITE brings another."""

    ours: OwnAudio
    direction: Direction
    sections: tuple[Media, ...]
    crypto: tuple[Crypto, ...]
    is_open: bool = field(default=True)


class Negotiator:
    """The two sides' descriptions of one audio stream, from the first offer to the last.

    An operation that raises leaves everything as it was.

    Args:
        local: where we receive; the same for the dialog's whole life.
        codecs: what we speak, most wanted first.
        srtp: see above.
        session_id: of our `o=` line, unique among our dialogs.
        ptime: the packet time we ask for, ms.
        key: makes 30 random bytes, a master key with its salt.
    """

    def __init__(
        self,
        local: LocalMedia,
        codecs: Sequence[Codec],
        srtp: Srtp,
        session_id: int,
        ptime: int = 20,
        key: Callable[[], bytes] = new_key,
    ) -> None:
        self._local = local
        self._ip_version = ip_address(local.address).version
        self._codecs = tuple(codecs)
        self._srtp: Srtp = srtp
        self._session_id = session_id
        self._ptime = ptime
        self._make_key = key
        self._keys: dict[str, bytes] = {}  # ours, by suite
        self._session = _Session()
        self._offer: _Offer | None = None
        self._version = 0
        self._said = ""  # all of our last description but its `v=` and `o=` lines

    @property
    def agreed(self) -> Agreed | None:
        """The outcome of the last completed exchange, None before the first."""
        return self._session.agreed

    @property
    def offering(self) -> bool:
        """An offer of ours waits for its answer."""
        return self._offer is not None and self._offer.is_open

    def make_offer(self, *, direction: Direction = "sendrecv", full: bool = False) -> bytes:
        """An offer, the first or a new one; takes the place of one that is still open.

        `direction` is ours: `sendonly` puts the peer on hold, and stays in force in our later
        answers until another offer of ours says otherwise.
        """
        session = self._session
        ours = session.ours or initial(self._codecs, self._srtp, self._ptime)
        if full:
            ours = widened(ours, self._codecs, self._srtp)
        sections = session.sections
        if ours.index >= len(sections):
            # The first offer; or a peer has let sections vanish, which it must not.
            ours = replace(ours, index=len(sections))
            sections = (*sections, Media("audio", 0, ours.profile, ()))
        crypto = tuple(Crypto(tag, suite, self._key(suite)) for tag, suite in ours.suites)
        self._offer = _Offer(ours, direction, sections, crypto)
        return self._describe(ours, sections, direction, crypto)

    def answer(self, offer: bytes) -> bytes:
        """The answer to an offer of the peer's, which takes effect at once.

        Raises:
            SdpError: not a session description.
            NotAcceptable: nothing in it that we can do, or an offer of ours is open (491).
        """
        if self.offering:
            raise NotAcceptable(399, "offer pending", 491)
        description = parse(offer)
        sections = description.media
        audio = [item for item in enumerate(sections) if item[1].kind == "audio" and item[1].port]
        session = self._session
        if session.ours is not None:
            place = session.ours.index
            audio.sort(key=lambda item: item[0] != place)
        refusal: SipError | None = None
        for index, media in audio:
            try:
                ours, agreed = self._accept(index, media, read_audio(description, media))
            except (SdpError, NotAcceptable) as error:
                refusal = refusal or error
                continue
            keys = agreed.srtp
            crypto = [Crypto(tag, suite, keys.local) for tag, suite in ours.suites if keys]
            self._commit(_Session(agreed, ours, sections, session.wanted))
            return self._describe(ours, sections, direction_of(agreed), crypto)
        if refusal is not None:
            raise refusal
        if session.agreed is None or all(media.kind != "audio" for media in sections):
            raise NotAcceptable(304, "no audio offered")
        # The stream is switched off, its place in the description kept (RFC 3264 section 8.2).
        self._commit(replace(session, agreed=_stopped(session.agreed), sections=sections))
        return self._describe(None, sections, "inactive", ())

    def take_answer(self, answer: bytes) -> None:
        """The peer's answer to our offer.

        May be called again for the same offer: an early answer comes again in the 2xx, and each
        fork of an INVITE has its own.

        Raises:
            SdpError: not a session description, or there was no offer.
            NotAcceptable: it refuses our audio or does not fit the offer. The call cannot go on
                if this was the first exchange.
        """
        offer = self._offer
        if offer is None:
            raise SdpError("answer without an offer")
        description = parse(answer)
        index = offer.ours.index
        if index >= len(description.media) or description.media[index].kind != "audio":
            raise NotAcceptable(304, "answer lacks our audio")
        media = description.media[index]
        before = self._session.agreed
        if media.port:
            remote = read_audio(description, media, offer.ours.telephone_event)
            agreed = self._conclude(offer, remote)
        elif before is None:
            raise NotAcceptable(305, "audio refused")
        else:
            agreed = _stopped(before)
        self._commit(_Session(agreed, offer.ours, offer.sections, offer.direction))
        self._offer = offer
        offer.is_open = False

    def rollback(self) -> None:
        """Our open offer has failed: all is as it was before. Nothing open: nothing happens."""
        if self.offering:
            self._offer = None

    def _accept(self, index: int, media: Media, remote: RemoteAudio) -> tuple[OwnAudio, Agreed]:
        """Our section and the outcome for an offered one. Raises NotAcceptable."""
        session = self._session
        before = session.agreed
        in_use = before.srtp if before else None
        crypto = choose_crypto(remote, self._srtp, in_use)
        check_address(remote, self._ip_version)
        chosen = choose_codec(remote, self._codecs, before.codec if before else None)
        ours = OwnAudio(
            index=index,
            profile=media.profile,
            formats=(chosen,),
            telephone_event=remote.formats.telephone_event,
            comfort_noise=remote.formats.comfort_noise,
            suites=((crypto.tag, crypto.suite),) if crypto else (),
            rtcp_mux=remote.rtcp_mux,
            ptime=packet_time(remote, self._ptime),
        )
        agreed = agree(
            ours,
            remote,
            chosen,
            before,
            wanted=session.wanted,
            held=not remote.receives,
            srtp=self._answering_keys(crypto, in_use) if crypto else None,
        )
        return ours, agreed

    def _answering_keys(self, crypto: Crypto, in_use: SrtpKeys | None) -> SrtpKeys:
        if in_use and (in_use.suite, in_use.remote) == (crypto.suite, crypto.key):
            return in_use
        return SrtpKeys(crypto.suite, self._make_key(), crypto.key)

    def _conclude(self, offer: _Offer, remote: RemoteAudio) -> Agreed:
        """What an answer that takes our section makes of our offer. Raises NotAcceptable."""
        before = self._session.agreed
        srtp = answered_keys(offer.crypto, remote, self._srtp)
        check_address(remote, self._ip_version)
        sends, _ = flags(offer.direction)
        return agree(
            offer.ours,
            remote,
            choose_codec(remote, [codec for _, codec in offer.ours.formats], None),
            before,
            wanted=offer.direction,
            # An offer that wanted to send nothing learns nothing about what the peer would hear.
            held=not remote.receives if sends else before is not None and before.held,
            srtp=srtp,
        )

    def _key(self, suite: str) -> bytes:
        if suite not in self._keys:
            self._keys[suite] = self._make_key()
        return self._keys[suite]

    def _commit(self, session: _Session) -> None:
        before = self._session.agreed.srtp if self._session.agreed else None
        now = session.agreed.srtp if session.agreed else None
        if before and (now is None or now.suite != before.suite):
            # Were the suite ever taken up again, its packet counter would begin anew, and the same
            # key would make the same key stream.
            self._keys.pop(before.suite, None)
        if now:
            self._keys[now.suite] = now.local
        self._session = session
        self._offer = None

    def _describe(
        self,
        ours: OwnAudio | None,
        sections: Sequence[Media],
        direction: Direction,
        crypto: Sequence[Crypto],
    ) -> bytes:
        """Our description: our own section in its place, all others turned down."""
        address = f"IN IP{self._ip_version} {self._local.address}"
        media = [section.rejected() for section in sections]
        if ours is not None:
            media[ours.index] = write(ours, self._local, direction, crypto)
        # No name in `s=`: scanners learn nothing from it.
        lines = (Line("s", "-"), Line("c", address), Line("t", "0 0"))
        said = str(SessionDescription(lines, tuple(media)))
        if said != self._said:
            self._said = said
            self._version += 1
        head = f"v=0\r\no=- {self._session_id} {self._version} {address}\r\n"
        return (head + said).encode("utf-8", "surrogateescape")


def _stopped(agreed: Agreed) -> Agreed:
    return replace(agreed, send=False, receive=False, held=True)
