"""Data in an agent's words: what a function has returned, what a conversation was about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["first_sentences", "gist", "in_words", "last_sentences"]

TELLING: Final = ("answer", "text", "message", "result", "error", "note")
"""Values of these names are what is to be said; the others beside them are not."""

DEPTH: Final = 4
"""Of values within values; what lies deeper is not said."""

LINE: Final = 200
"""Characters of each side's last words."""

_ENDS: Final = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
_SPOKEN: Final = re.compile(r"^(caller|agent): (.+?)(?: —)?$", re.M)


def in_words(value: object) -> str:
    """What a function has returned, as it is said; "" where that is nothing.

    A text stays as it is. Of other values each makes a clause: `{"order_state": "sent", "paid":
    true}` is "The order state is sent and paid."
    """
    if not isinstance(value, Mapping | list):
        return _scalar(value)
    if isinstance(value, Mapping) and (told := _told(value)) is not None:
        return told
    return _sentences(_clauses(value, 0))


def first_sentences(text: str, most: int) -> str:
    """As many whole sentences as `most` characters hold; words, where the first is longer."""
    words = text[: most + 1].rpartition(" ")[0] or text[:most]
    return _fitting(_ENDS.split(text), text, most) or words


def last_sentences(text: str, most: int) -> str:
    """The same of the end."""
    if len(text) <= most:
        return text
    kept = ""
    for sentence in reversed(_ENDS.split(text)):
        longer = f"{sentence} {kept}".strip()
        if len(longer) > most:
            break
        kept = longer
    return kept or text[-most - 1 :].partition(" ")[2] or text[-most:]


def gist(conversation: str) -> str:
    """What both sides said last, of a transcript in lines; the last sentences of anything else."""
    last = {found[1]: found[2] for found in _SPOKEN.finditer(conversation)}
    told = [
        f'The {who} said: "{last_sentences(last[who], LINE)}"'
        for who in ("caller", "agent")
        if who in last
    ]
    return " ".join(told) or last_sentences(conversation, LINE)


def _fitting(sentences: Iterable[str], text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = 0
    for sentence in sentences:
        after = text.index(sentence, end) + len(sentence)
        if after > most:
            break
        end = after
    return text[:end]


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _told(value: Mapping[str, Any]) -> str | None:
    return next((value[name] for name in TELLING if isinstance(value.get(name), str)), None)


def _clauses(value: object, depth: int) -> list[str]:
    """Clauses, and sentences, which end as such."""
    if depth >= DEPTH:
        return []
    if isinstance(value, Mapping):
        if (told := _told(value)) is not None:
            return [told]
        return [each for name, inner in value.items() for each in _named(name, inner, depth)]
    if isinstance(value, list):
        return [each for inner in value for each in _clauses(inner, depth + 1)]
    return [text] if (text := _scalar(value)) else []


def _named(name: str, value: object, depth: int) -> list[str]:
    name = name.replace("_", " ").strip()
    if isinstance(value, bool):
        return [name if value else f"not {name}"]
    if isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value)
    ):
        return _clauses(value, depth + 1)
    said = _clauses(value, depth + 1)
    if not said or _is_sentence(said[0]):
        return said
    several = len(said) > 1 or (name.endswith("s") and not name.endswith(("ss", "us")))
    return [f"the {name} {'are' if several else 'is'} {_and(said)}"]


def _is_sentence(text: str) -> bool:
    ended = text.rstrip().endswith((".", "!", "?"))
    return (ended and " " in text) or text.endswith(("\u3002", "\uff01", "\uff1f"))


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _sentences(parts: list[str]) -> str:
    said: list[str] = []
    clauses: list[str] = []
    for part in [*parts, ""]:
        if part and not _is_sentence(part):
            clauses.append(part)
            continue
        if clauses:
            joined = _and(clauses)
            said.append(f"{joined[0].upper()}{joined[1:]}.")
            clauses = []
        if part:
            said.append(part)
    return " ".join(said)
