"""What a simulated caller offers, and the answers to it (RFC 3264)."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from voiced.simulate import sip_sdp
from voiced.simulate.sip_dialog import Dialog
from voiced.simulate.sip_message import Message
from voiced.simulate.sip_sdp import Direction, Media, SdpError

__all__ = ["Offers"]


@final
class Offers:
    """Those of one call; `complain` is told of answers that are wrong."""

    def __init__(self, dialog: Dialog, complain: Callable[[float, int, str], None]) -> None:
        self._dialog = dialog
        self._complain = complain
        self._made: Media | None = None

    def make(self, direction: Direction) -> bytes:
        """The next one, as SDP."""
        body = self._dialog.describe(direction)
        self._made = sip_sdp.read(body)
        return body

    def early(self, now_s: float, response: Message) -> Media | None:
        """The media of a provisional response, where it has any."""
        if not response.body or response.get("content-type") != "application/sdp":
            return None
        try:
            return sip_sdp.read(response.body)
        except SdpError as error:
            self._complain(now_s, 488, str(error))
            return None

    def answer(self, now_s: float, response: Message) -> Media | None:
        """The answer that a 2xx has to our last offer; None where it cannot be one."""
        content_type = (response.get("content-type") or "").partition(";")[0].strip().lower()
        if content_type != "application/sdp":
            self._complain(now_s, 488, f"the 2xx has no SDP but {content_type or 'nothing'!r}")
            return None
        assert self._made is not None
        try:
            media = sip_sdp.read(response.body)
            sip_sdp.agree(self._made, media)
        except SdpError as error:
            self._complain(now_s, 488, str(error))
            return None
        return media
