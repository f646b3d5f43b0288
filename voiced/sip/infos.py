"""INFO of ours (RFC 6086, legacy usage): one at a time, in the order in which they were asked for.

Over UDP two at a time could arrive in the wrong order, and keys are pressed in one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from voiced.sip.errors import InvalidState

if TYPE_CHECKING:
    from voiced.sip.message import Response
    from voiced.sip.session import Session

__all__ = ["Infos"]

# As many keys as an operator may press at once.
_MOST: Final = 64


class Infos:
    """Those of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: deque[tuple[bytes, str]] = deque()  # the first has been sent

    def send(self, body: bytes, content_type: str) -> None:
        """Send one, once those before it have been answered. Raises InvalidState beyond 64."""
        if len(self._waiting) >= _MOST:
            raise InvalidState("too many INFOs wait to be sent")
        self._waiting.append((body, content_type))
        if len(self._waiting) == 1:
            self._send()

    def _send(self) -> None:
        body, content_type = self._waiting[0]
        request = self._session.new_request("INFO", body=body, content_type=content_type)
        self._session.send(request, self._answered)

    def _answered(self, _response: Response) -> None:
        self._waiting.popleft()
        if self._waiting and self._session.state == "confirmed":
            self._send()
