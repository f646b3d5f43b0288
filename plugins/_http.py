"""The HTTP request that a tool stands for: described, filled in, sent, understood.

The host is the operator's and never the model's: nothing of the arguments reaches it, redirects
are not followed, proxies of the environment are not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import httpx
import trio
from msgspec import Meta, field

from voiced.plugin import Settings, SoundFile, check_schema

__all__ = [
    "Failed",
    "Header",
    "HttpTool",
    "build",
    "new_client",
    "new_request",
    "perform",
    "url_parts",
]

Seconds = Annotated[float, Meta(gt=0, le=120)]

_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_IDEMPOTENT: Final = ("GET", "PUT", "DELETE")  # RFC 9110 section 9.2.2
_AGAIN: Final = (502, 503, 504)  # the service behind is restarting, or full for the moment
_PAUSE_S: Final = 0.3
_EXCERPT: Final = 300  # characters of a refusal: they say which argument is wrong
_CALL: Final = ("caller", "called", "call_id")
"""What else may be filled in: facts of the call, which the model cannot make up."""


class Header(Settings, frozen=True):
    """A header whose value is a secret."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")]
    """Its name, such as `"Authorization"`."""
    prefix: str = ""
    """What stands before the secret, such as `"Bearer "`."""
    value: str | None = None
    """The secret."""
    value_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    value_env: str | None = None
    """The environment variable with it."""

    def mistakes(self) -> Iterator[str]:
        """Texts that no header can hold."""
        # What HTTP cannot hold is refused where it is used, in words that would repeat the secret.
        text = self.prefix + (self.value or "")
        if not (text.isascii() and text.isprintable()):
            yield f"{self.name} has what no header can hold; write ASCII, one line of it"

    def __repr__(self) -> str:
        return f"Header({self.name})"


class HttpTool(Settings, frozen=True):
    """A tool that is an HTTP request."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """What the model calls it."""
    description: str
    """What the model is told of it: when to use it, and what comes back."""
    url: str
    """Where it is. `{name}` stands for an argument, percent-encoded; `{caller}`, `{called}` and \
`{call_id}` for the call's. Not in the host."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The arguments, as a JSON Schema of type object. Left out: there are none."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """The HTTP method."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers; places are filled in as in `url`, not encoded."""
    secret_headers: tuple[Header, ...] = ()
    """Headers with a secret, such as an API key."""
    body: str | None = None
    """What is sent; places become JSON values, quotes included. Left out: the arguments that \
`url` and `headers` do not use, as a JSON object (with GET and DELETE: as a query)."""
    content_type: str = "application/json"
    """What `body` is. With `application/x-www-form-urlencoded` places are encoded for that."""
    timeout_s: Seconds = 8.0
    """How long it may take in all; then the model is told so."""
    retries: Annotated[int, Meta(ge=0, le=5)] = 1
    """How often a request that does no harm twice (GET, PUT, DELETE) is tried again."""
    max_bytes: Annotated[int, Meta(ge=1, le=4_194_304)] = 262_144
    """The largest answer that is read."""
    max_chars: Annotated[int, Meta(ge=1, le=32_000)] = 4_000
    """How much of it the model is told."""
    extract: str | None = None
    """The part of a JSON answer that the model is told: a JSON Pointer like `"/order/status"`."""
    filler: SoundFile | None = None
    """A WAV file that the caller hears meanwhile."""
    filler_text: str | None = None
    """Or words that the agent says meanwhile."""

    def mistakes(self) -> Iterator[str]:
        """What no request can be made of."""
        parts = url_parts(self.url)
        if parts is None:
            yield f'url: "{self.url}" is none; write https://host/path'
        elif "{" in parts.netloc or "@" in parts.netloc or "#" in self.url:
            yield "url: the host is fixed, without a user or a fragment; use secret_headers"
        elif {".", ".."} & set(parts.path.split("/")):
            yield "url: it has folders of dots; write the path that is meant"
        fault = check_schema(self.parameters) if self.parameters else None
        if fault is None and self.parameters.get("type", "object") != "object":
            fault = "the schema has to be of type object"
        if fault is not None:
            yield f"parameters: {fault}; correct it"
        else:
            known = (*self.properties, *_CALL)
            texts = [("url", self.url), *(("headers", text) for text in self.headers.values())]
            for key, text in texts:
                for name in _PLACE.findall(text):
                    if name not in known:
                        yield f"{key}: {{{name}}} is no argument; there are {', '.join(known)}"
        if self.extract is not None and not re.fullmatch(r"(/([^~/]|~[01])*)*", self.extract):
            yield f'extract: "{self.extract}" is no JSON Pointer; begin it with /'
        if self.filler is not None and self.filler_text is not None:
            yield "filler_text: there is a filler as well; keep one of them"
        for header in self.secret_headers:
            if header.value is None and header.value_file is None and header.value_env is None:
                yield f"{header.name} has no value; add value, value_file or value_env"

    @property
    def properties(self) -> tuple[str, ...]:
        """The names of the arguments."""
        return tuple(self.parameters.get("properties", ()))

    @property
    def schema(self) -> Mapping[str, Any]:
        """What the model is told of the arguments."""
        return {"type": "object", "properties": {}, **self.parameters}


def url_parts(text: str) -> SplitResult | None:
    """The parts of an address that can be asked; None of anything else."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        httpx.URL(_PLACE.sub("x", text))
    except (ValueError, httpx.InvalidURL):
        return None
    return parts if known else None


class Failed(Exception):
    """A request that came to nothing; the text is for the model."""


# ---- filled in ----


def build(tool: HttpTool, arguments: Mapping[str, Any], call: Mapping[str, str]) -> httpx.Request:
    """Fill in a request; `call` has the facts of the call.

    Raises Failed for arguments that cannot stand where they belong.
    """
    # An optional argument that was left out is nothing, not a place that stayed.
    values: dict[str, Any] = {**call, **dict.fromkeys(tool.properties), **arguments}
    headers = {name: _header(_filled(text, values, _text)) for name, text in tool.headers.items()}
    for secret in tool.secret_headers:
        headers[secret.name] = secret.prefix + (secret.value or "")
    url = _filled(tool.url, values, _segment)
    _check_path(tool.url, url, values)
    if tool.body is not None:
        form = tool.content_type.startswith("application/x-www-form-urlencoded")
        content = _filled(tool.body, values, _quoted if form else _json).encode()
    else:
        places = (tool.url, *tool.headers.values())
        used = {name for text in places for name in _PLACE.findall(text)}
        rest = {name: value for name, value in arguments.items() if name not in used}
        content = b""
        if tool.method in ("GET", "DELETE"):
            query = urlencode({name: _text(value) for name, value in rest.items()})
            if query:
                url += ("&" if urlsplit(url).query else "?") + query
        else:
            content = _json(rest).encode()
    if content:
        headers.setdefault("Content-Type", tool.content_type)
    headers.setdefault("Accept", "application/json, text/plain, */*;q=0.5")
    headers.setdefault("User-Agent", "voiced")
    headers["Accept-Encoding"] = "identity"  # what unpacks to more than it weighs is not read
    try:
        return new_request(tool.method, url, headers, content, tool.timeout_s)
    except httpx.InvalidURL:
        raise Failed("the arguments are too long for an address") from None


def _filled(template: str, values: Mapping[str, Any], write: Callable[[Any], str]) -> str:
    def place(match: re.Match[str]) -> str:
        # What is no argument is part of the text: JSON is full of braces.
        name = match[1]
        return write(values[name]) if name in values else match[0]

    return _PLACE.sub(place, template)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _quoted(value: object) -> str:
    return quote(_text(value), safe="")


def _segment(value: object) -> str:
    text = _text(value)
    if {".", ".."} & set(re.split(r"[/\\]", text)):
        # Encoding does not protect dots, and some servers take even %2F for the end of a folder.
        raise Failed("an argument cannot hold a path of dots")
    return quote(text, safe="")


def _check_path(template: str, url: str, values: Mapping[str, Any]) -> None:
    """Refuse a path that would name something else than was meant: all orders, or no order."""
    for wanted, part in zip(_folders(template), _folders(url), strict=False):
        said = any(values.get(name) is not None for name in _PLACE.findall(wanted))
        if wanted != part and (part in (".", "..") or (not part and said)):
            raise Failed("an argument that is part of the address cannot be empty")


def _folders(url: str) -> list[str]:
    return urlsplit(url).path.split("/")


def _header(text: str) -> str:
    if not text.isprintable():
        raise Failed("an argument cannot hold line breaks")
    return text.encode("ascii", "replace").decode()


# ---- sent ----


def new_client() -> httpx.AsyncClient:
    """What all tools share. Each request has its own time limit, set by its tool."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
    return httpx.AsyncClient(trust_env=False, timeout=None, limits=limits)  # noqa: S113


class _Whole(httpx.AsyncByteStream):
    """A body in one piece.

    httpx's own is a generator, and a request that is cancelled leaves it behind, unfinished.
    `voiced.client` has the same for voiced's own servers. A plugin imports `voiced.plugin` alone,
    and that should not load an HTTP library for those that ask nobody.
    """

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Whole(*self._left)

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def new_request(
    method: str, url: str, headers: Mapping[str, str], content: bytes, limit_s: float
) -> httpx.Request:
    """A request that is cut off after `limit_s`, by its sender.

    Raises httpx.InvalidURL. Connecting ends a little before: cut off in the midst of a TLS
    handshake, httpcore would leave the socket open until it is collected.
    """
    request = httpx.Request(
        method,
        url,
        headers=headers,
        content=content or None,
        extensions={"timeout": {"connect": 0.9 * limit_s}},
    )
    if content:
        request.stream = _Whole(content)
    return request


async def perform(client: httpx.AsyncClient, tool: HttpTool, request: httpx.Request) -> str:
    """Send a request; returns what the model is told. Raises Failed."""
    tries = 1 + (tool.retries if tool.method in _IDEMPOTENT else 0)
    with trio.move_on_after(tool.timeout_s):
        while True:
            tries -= 1
            try:
                return await _once(client, tool, request, last=tries == 0)
            except (httpx.TransportError, httpx.DecodingError) as error:
                if tries == 0:
                    why = (
                        "cannot be reached"
                        if isinstance(error, httpx.ConnectError)
                        else "broke off"
                    )
                    raise Failed(f"the service {why}") from error
            except _TryAgain:
                pass
            await trio.sleep(_PAUSE_S)
    raise Failed(f"the service did not answer within {tool.timeout_s:g} seconds")


class _TryAgain(Exception):
    """The service may do better in a moment."""


async def _once(
    client: httpx.AsyncClient, tool: HttpTool, request: httpx.Request, *, last: bool
) -> str:
    response = await client.send(request, stream=True, follow_redirects=False)
    async with aclosing(response):
        if response.status_code in _AGAIN and not last:
            raise _TryAgain
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Failed("the service's answer is compressed, which nobody asked for")
        content = bytearray()
        # What is too large is cancelled, not left: httpx's generators are unwound by nothing else.
        with trio.CancelScope() as scope:
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > tool.max_bytes:
                    scope.cancel()
        if len(content) > tool.max_bytes:
            raise Failed("the service's answer is too large")
    try:
        text = content.decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:
        text = content.decode("utf-8", "replace")
    if not response.is_success:
        words = f"the service refused with status {response.status_code}"
        excerpt = " ".join(text.split())[:_EXCERPT] if response.is_client_error else ""
        raise Failed(f"{words}: {excerpt}" if excerpt else words)
    return _shortened(_extracted(text, tool.extract), tool.max_chars) or "It is done."


# ---- understood ----


def _extracted(text: str, pointer: str | None) -> str:
    """The part of a JSON text that a JSON Pointer names (RFC 6901). Raises Failed."""
    if pointer is None:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Failed("the service's answer is no JSON") from None
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise Failed("the service's answer does not say it")
    return value if isinstance(value, str) else _json(value)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
