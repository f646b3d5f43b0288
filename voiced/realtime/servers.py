"""What differs between servers that speak the Realtime protocol, as flags.

Sources: each vendor's Realtime pages. A server that is not named here is taken to behave as
OpenAI's does; `session.updated` and its errors correct that as far as they can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from voiced.config.types import RealtimeEngine
from voiced.formats import PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding

__all__ = ["SERVERS", "Dialect", "Server", "choose_format", "request_headers", "request_url"]

Dialect = Literal["ga", "beta"]

_G711_AND_PCM = (PCMU_8K, PCMA_8K, PCM16_24K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Capabilities of one kind of server.

    Args:
        input_formats: what it takes, the preferred PCM first among the PCM ones.
        output_formats: what it sends, likewise.
        only_beta: it speaks the beta dialect whatever the configuration says.
        supports_truncate, supports_cancel, supports_delete: whether these client events exist.
        voice_location: where `voice` and `turn_detection` stand in the session.
        api_key_header: `Authorization` carries the key as a Bearer token, others bare.
        names_conversations: a null `conversation_id` marks an out-of-band response.
        pcm_name: how the beta dialect calls 16-bit PCM.
        max_session_s: after which the server ends the session; None where it is not known.
    """

    input_formats: tuple[AudioFormat, ...] = _G711_AND_PCM
    output_formats: tuple[AudioFormat, ...] = _G711_AND_PCM
    only_beta: bool = False
    supports_truncate: bool = True
    supports_cancel: bool = True
    supports_delete: bool = True
    voice_location: Literal["nested", "top"] = "nested"
    api_key_header: str = "Authorization"
    names_conversations: bool = False
    pcm_name: str = "pcm16"
    max_session_s: int | None = None

    def dialect(self, configured: Dialect) -> Dialect:
        """The dialect to speak with it."""
        return "beta" if self.only_beta else configured


SERVERS: Final[dict[str, Server]] = {
    "openai": Server(names_conversations=True, max_session_s=3600),
    "azure": Server(names_conversations=True, api_key_header="api-key"),
    "xai": Server(voice_location="top", max_session_s=3600),
    # It accepts audio/pcmu and ignores it, so it is never asked for.
    "localai": Server(input_formats=(PCM16_24K,), output_formats=(PCM16_24K,)),
    "speaches": Server(
        only_beta=True,
        input_formats=(PCM16_24K,),
        output_formats=(PCM16_24K,),
        supports_truncate=False,
        supports_cancel=False,
    ),
    "qwen": Server(
        only_beta=True,
        input_formats=(PCM16_16K,),
        output_formats=(PCM16_24K,),
        supports_truncate=False,
        supports_delete=False,
        pcm_name="pcm",
        max_session_s=7200,
    ),
    # Its models hear 16 kHz and it takes nothing else.
    "vllm-omni": Server(input_formats=(PCM16_16K,), output_formats=(PCM16_24K,)),
    "other": Server(),
}


def choose_format(
    setting: Literal["auto", "pcmu", "pcma", "pcm"],
    leg: AudioFormat,
    spoken: tuple[AudioFormat, ...],
) -> AudioFormat:
    """Return the leg's own format where the server speaks it, else PCM; or what `setting` says."""
    if setting == "pcmu":
        return PCMU_8K
    if setting == "pcma":
        return PCMA_8K
    if setting == "auto" and leg in spoken:
        return leg
    return next((f for f in spoken if f.encoding is Encoding.PCM16), PCM16_24K)


def request_url(config: RealtimeEngine) -> str:
    """Return the configured URL with `?model=`, unless its query names a model already."""
    parts = urlsplit(config.url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if config.model and all(name != "model" for name, _ in query):
        query.append(("model", config.model))
    return urlunsplit(parts._replace(query=urlencode(query), fragment=""))


def request_headers(config: RealtimeEngine) -> list[tuple[str, str]]:
    """Return the handshake's extra headers, the key among them: not for the log.

    A configured header replaces the one of the same name. OpenAI refuses the `OpenAI-Beta`
    header since the beta interface ended, so it goes with the beta dialect only.
    """
    server = SERVERS[config.server]
    headers: dict[str, tuple[str, str]] = {}
    if config.api_key:
        name = server.api_key_header
        value = f"Bearer {config.api_key}" if name == "Authorization" else config.api_key
        headers[name.lower()] = (name, value)
    if server.dialect(config.dialect) == "beta":
        headers["openai-beta"] = ("OpenAI-Beta", "realtime=v1")
    for name, value in config.headers.items():
        headers[name.lower()] = (name, value)
    return list(headers.values())
