"""HTTP to the servers of a pipeline engine: one pool of connections, requests whose answers stream.

Source: OpenAI's API reference; httpx, on Trio. Leaving an answer before its end closes its
connection, which is how a server learns that nobody wants the rest.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final, final

import httpx
import msgspec
import trio

from voiced import __version__
from voiced.client import Client, body_of
from voiced.config.types import Provider
from voiced.pipeline.errors import MAX_MESSAGE_CHARS, refusal
from voiced.pipeline.providers import ProviderError

__all__ = ["MAX_ANSWER", "Answer", "Http"]

MAX_ANSWER: Final = 1024 * 1024  # bytes of an answer that is read whole; a transcript has a few KB
MAX_ERROR: Final = 64 * 1024  # bytes of a refusal

# A call has one transcription or two, one chat and two sentences in the making: 5 times the
# hundred calls of `max_calls`' default. More wait, `timeout_s` at most.
MAX_CONNECTIONS: Final = 500
# Idle ones: one for each of those calls. They are kept for as long as callers commonly speak.
MAX_IDLE: Final = 100
IDLE_S: Final = 60.0
CONNECT_S: Final = 3.0  # a second try of the SYN included
CLOSE_S: Final = 0.5  # for all connections, which say good-bye but wait for no answer


@final
class Answer:
    """The head of an answer with status 200; its body is still to come."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def content_type(self) -> str:
        """Of the body, in lower case, without parameters; empty where the server gives none."""
        value: str = self._response.headers.get("content-type", "")
        return value.partition(";")[0].strip().lower()

    @property
    def rate(self) -> int | None:
        """The sampling rate that the type of the body names: "audio/pcm;rate=16000"."""
        _, *parameters = self._response.headers.get("content-type", "").lower().split(";")
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "rate" and value.strip().isdecimal():
                return int(value)
        return None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises ProviderError."""
        with _translated():
            async with aclosing(body_of(self._response)) as pieces:
                async for piece in pieces:
                    yield piece

    async def read(self) -> bytes:
        """The whole body. Raises ProviderError, also for one larger than `MAX_ANSWER`."""
        with _translated():
            whole = await _read(self._response, MAX_ANSWER + 1)
        if len(whole) > MAX_ANSWER:
            raise ProviderError("bad_answer", "the answer is too large", "refused")
        return whole


@final
class Http:
    """The connections of one engine, kept as long as any of its calls lives."""

    def __init__(self, transport: Callable[[], httpx.AsyncBaseTransport] | None = None) -> None:
        """Prepare; nothing is connected. `transport` is for tests."""
        self._transport = transport
        self._trusted: ssl.SSLContext | None = None
        self._users = 0
        self._open: Client | None = None

    @asynccontextmanager
    async def in_use(self) -> AsyncGenerator[None, None]:
        """Requests may be made in this context.

        The last one that is left closes all connections, within half a second.
        """
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._open is not None:
                client, self._open = self._open, None
                with trio.move_on_after(CLOSE_S, shield=True):
                    await client.aclose()

    @property
    def _client(self) -> Client:
        if not self._users:
            raise RuntimeError("no request outside of in_use()")
        if self._open is None:
            if self._trusted is None and self._transport is None:
                # The system's trust store; reading it takes 20 ms.
                self._trusted = ssl.create_default_context()
            self._open = Client(
                headers={
                    "User-Agent": f"voiced/{__version__}",
                    # Compressed, a stream comes in fewer pieces, and later.
                    "Accept-Encoding": "identity",
                },
                verify=self._trusted or True,
                limits=httpx.Limits(
                    max_connections=MAX_CONNECTIONS,
                    max_keepalive_connections=MAX_IDLE,
                    keepalive_expiry=IDLE_S,
                ),
                transport=None if self._transport is None else self._transport(),
                follow_redirects=False,  # nobody else gets the key
            )
        return self._open

    @asynccontextmanager
    async def post(
        self,
        server: Provider,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        file: tuple[str, bytes, str] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Send JSON, or a form with a `file` (name, content, type), and stream the answer.

        Raises ProviderError for what is wrong with the connection, the request or the answer, also
        out of the body of the context. Silence of `server.timeout_s` at any step is an error.
        """
        sent: dict[str, Any] = {}
        if json is not None:
            headers = {"Content-Type": "application/json"}
            sent = {"content": msgspec.json.encode(json), "headers": headers}
        if file is not None:
            sent = {"data": dict(form or {}), "files": {"file": file}}
        async with self._ask(server, "POST", path, **sent) as response:
            yield Answer(response)

    async def reach(self, server: Provider) -> None:
        """Ask the server for its list of models, for the sake of the connection, which is kept.

        Raises ProviderError where it cannot be reached or does not know the key. Anything else
        that it says to this is well, for it need not know the question.
        """
        try:
            async with self._ask(server, "GET", "/models") as response:
                await _read(response, MAX_ANSWER)
        except ProviderError as error:
            if error.code in _HOPELESS:
                raise

    @asynccontextmanager
    async def _ask(
        self,
        server: Provider,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] = {},
        **sent: Any,
    ) -> AsyncGenerator[httpx.Response, None]:
        key = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
        with _translated(server.api_key):
            async with self._client.stream(
                method,
                server.url.rstrip("/") + path,
                headers={**key, **headers, **server.headers},
                timeout=httpx.Timeout(server.timeout_s, connect=min(CONNECT_S, server.timeout_s)),
                **sent,
            ) as response:
                if response.status_code != 200:
                    told = await _read(response, MAX_ERROR)
                    raise refusal(response.status_code, response.headers, told)
                yield response


_HOPELESS: Final = frozenset(
    {"bad_certificate", "bad_url", "insufficient_quota", "invalid_api_key", "unreachable"}
)


async def _read(response: httpx.Response, most: int) -> bytes:
    read = bytearray()
    async with aclosing(body_of(response)) as pieces:
        async for piece in pieces:
            read += piece
            if len(read) >= most:
                break
    return bytes(read[:most])


@contextmanager
def _translated(secret: str | None = None) -> Iterator[None]:
    """Raise what httpx raises as ProviderError, without the key in its text."""
    try:
        yield
    except ProviderError as error:
        if secret and secret in error.message:  # a server may repeat what it did not like
            error.message = error.message.replace(secret, "…")
            error.args = (error.message,)
        raise
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise ProviderError("bad_url", _why(error), "terminal") from None
    except httpx.ConnectError as error:
        # A certificate stays wrong until somebody changes it.
        if _distrusted(error):
            raise ProviderError("bad_certificate", _why(error), "terminal") from None
        raise ProviderError("unreachable", _why(error)) from None
    except httpx.ConnectTimeout as error:
        raise ProviderError("unreachable", _why(error)) from None
    except httpx.TimeoutException as error:
        raise ProviderError("silent", f"no answer in time ({_why(error)})") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise ProviderError("connection_lost", _why(error)) from None


def _why(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:MAX_MESSAGE_CHARS]


def _distrusted(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
