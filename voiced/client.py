"""What every HTTP client of ours needs of httpx: requests and answers that may be cut off anywhere.

httpx sends and reads bodies through generators. A task that is cancelled in the midst of one leaves
it behind, unfinished, until it is collected; Trio has to end it then, and complains.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import trio

__all__ = ["Client", "body_of"]


class _Whole(httpx.AsyncByteStream):
    """A request's body in one piece, and no generator."""

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Whole(*self._left)

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class Client(httpx.AsyncClient):
    """One whose requests, forms with files too, are made whole before they are sent."""

    def build_request(self, *args: Any, **more: Any) -> httpx.Request:
        """As httpx does."""
        request = super().build_request(*args, **more)
        if content := request.read():
            request.stream = _Whole(content)
        return request


async def body_of(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body's pieces, to be closed (`aclosing`); left early, nothing stays behind.

    httpx reads through a chain of generators that nobody closes. With the connection gone, the next
    read ends all of them by its exception.
    """
    pieces = response.aiter_bytes()
    try:
        async for piece in pieces:
            yield piece
    finally:
        await response.aclose()
        with suppress(httpx.HTTPError, httpx.StreamError, trio.ClosedResourceError):
            async for _ in pieces:  # at most what was read already
                pass
