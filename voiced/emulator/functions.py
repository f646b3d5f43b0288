"""Which function a caller's words ask for, and what it is called with. No model: shared words.

A tool is called when the words have enough in common with its name and description. Arguments are
made from its JSON Schema, and from the words as far as they fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

__all__ = ["arguments_for", "wanted_tool"]

ENOUGH: Final = 2  # shared words; one of the tool's name counts as two
STEM: Final = 4  # letters that two words have to begin with alike: "book" is in "booking"
ENDING: Final = 4  # letters by which the longer of them may be longer
MAX_DEPTH: Final = 8  # of a schema; deeper ones are filled with nothing
MAX_TEXT: Final = 300  # characters of the caller's that go into an argument


# Words that say nothing about what is wanted, in callers' sentences and in descriptions.
_WORDS: Final = re.compile("[a-z]+")
_EMPTY_WORDS: Final = (
    "about after also and any are ask asked asks before call called caller callers calls can could "
    "did does for from gets give gives has have hello here into just know like make makes may more "
    "need needs not only our please say says some tell tells than thank that the their them then "
    "there they this use used user very want wants was what when where which who will with would "
    "you your"
)
_EMPTY: Final = frozenset(_WORDS.findall(_EMPTY_WORDS))
# What callers say, and what tools are named after.
_MEANING: Final = {
    "goodbye": ("end", "hang", "bye", "farewell", "finish"),
    "human": ("transfer", "operator", "agent", "colleague", "person"),
    "connect": ("transfer",),
    "transfer": ("connect", "forward"),
    "open": ("hours",),
    "appointment": ("book", "schedule", "calendar", "reserve"),
    "order": ("status", "delivery"),
    "saatleri": ("hours", "opening"),
    "randevu": ("appointment", "book"),
    "営業時間": ("hours", "opening"),
    "予約": ("appointment", "book"),
}
_COUNTED: Final = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS: Final = {word: value for value, word in enumerate(_WORDS.findall(_COUNTED))}
_TENS: Final = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WHEN: Final = re.compile(
    r"\b((?:today|tonight|tomorrow|monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
    r"(?: (?:morning|afternoon|evening|noon))?|at \w+|next \w+)",
    re.I,
)
_WHITHER: Final = re.compile(r"\b(?:to|with) (?:the |a |an |my |your )?([\w -]+)", re.I)
_DIGITS: Final = re.compile(r"\+?\d[\d .-]*")


def _words(text: str) -> set[str]:
    found = {word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text.replace("_", " ")))}
    return found - _EMPTY


def _alike(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if short == long:
        return True
    if len(short) < STEM or len(long) - len(short) > ENDING:
        return False
    stem = max(STEM, len(short) - 1)  # "closing" and "closed" no, "hours" and "hour" yes
    return long.startswith(short[:stem])


def _shared(one: set[str], other: set[str]) -> int:
    return sum(any(_alike(word, there) for there in other) for word in one)


def wanted_tool(
    tools: Sequence[Mapping[str, Any]], words: str, choice: object = "auto"
) -> Mapping[str, Any] | None:
    """Return the tool that `words` ask for, or None.

    Args:
        tools: each with `name`, and perhaps `description` and `parameters`.
        words: what the caller said.
        choice: `tool_choice`, in either of OpenAI's shapes; it may forbid or demand a call.
    """
    if choice == "none" or not tools:
        return None
    if isinstance(choice, Mapping):
        name = choice.get("name") or (choice.get("function") or {}).get("name")
        return next((tool for tool in tools if tool["name"] == name), None)
    said = _words(words)
    for word, others in _MEANING.items():
        if word in words.lower():
            said.update(others)

    def score(tool: Mapping[str, Any]) -> int:
        named, described = _words(tool["name"]), _words(tool.get("description") or "")
        return 2 * _shared(named, said) + _shared(described - named, said)

    best = max(tools, key=score)
    return best if choice == "required" or score(best) >= ENOUGH else None


def arguments_for(tool: Mapping[str, Any], words: str) -> str:
    """Return arguments for `tool` as JSON: what it requires, and what the words say besides."""
    schema = tool.get("parameters")
    filled = _object(schema if isinstance(schema, Mapping) else {}, words[:MAX_TEXT], 0)
    return msgspec.json.encode(filled).decode()


def _object(schema: Mapping[str, Any], words: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or depth > MAX_DEPTH:
        return {}
    required = schema.get("required")
    wanted = required if isinstance(required, list) else list(properties)
    filled = {}
    for name, inner in properties.items():
        known = inner if isinstance(inner, Mapping) else {}
        if name in wanted or _named_in(known, words) is not None:
            filled[name] = _value(name, known, words, depth + 1)
    return filled


def _members(schema: Mapping[str, Any]) -> list[Any]:
    members = schema.get("enum")
    return members if isinstance(members, list) else []


def _named_in(schema: Mapping[str, Any], words: str) -> Any:
    """Return the member of an enumeration that the words name."""
    said = _words(words)
    for member in _members(schema):
        if isinstance(member, str) and _shared(_words(member), said):
            return member
    return None


def _value(name: str, schema: Mapping[str, Any], words: str, depth: int) -> Any:
    if "const" in schema:
        return schema["const"]
    if members := _members(schema):
        named = _named_in(schema, words)
        return members[0] if named is None else named
    for several in ("anyOf", "oneOf", "allOf"):
        options = schema.get(several)
        if isinstance(options, list) and options and isinstance(options[0], Mapping):
            return _value(name, options[0], words, depth) if depth <= MAX_DEPTH else None
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if isinstance(one, str) and one != "null"), "null")
    match kind:
        case "integer" | "number":
            return _number(schema, words, whole=kind == "integer")
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            inner = schema.get("items")
            element = _value(name, inner if isinstance(inner, Mapping) else {}, words, depth + 1)
            return [element] if depth <= MAX_DEPTH else []
        case "object":
            return _object(schema, words, depth)
        case _:
            return _text(name, schema, words)


def _number(schema: Mapping[str, Any], words: str, *, whole: bool) -> float:
    found = re.search(r"-?\d+(?:\.\d+)?", words)
    value = float(found[0]) if found else _spoken_number(words)
    if value is None:
        default = schema.get("default")
        value = float(default) if isinstance(default, int | float) else 1.0
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(low, int | float):
        value = max(value, low)
    if isinstance(high, int | float):
        value = min(value, high)
    return int(value) if whole else value


def _spoken_number(words: str) -> float | None:
    said = re.findall(r"[a-z]+", words.lower().replace("-", " "))
    for index, word in enumerate(said):
        if word in _TENS:
            one = _NUMBERS.get(said[index + 1], 0) if index + 1 < len(said) else 0
            return _TENS[word] + (one if one < 10 else 0)
        if word in _NUMBERS and word != "one":  # "no one", "this one"
            return _NUMBERS[word]
    return None


_FORMATS: Final = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T10:30:00Z",
    "time": "10:30:00",
    "email": "caller@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def _text(name: str, schema: Mapping[str, Any], words: str) -> str:
    form = schema.get("format")
    if isinstance(form, str) and form in _FORMATS:
        return _FORMATS[form]
    hints = _words(name) | {name.lower()}
    when, whither, digits = _WHEN.search(words), _WHITHER.search(words), _DIGITS.search(words)
    found = words
    if when and hints & {"when", "date", "day", "time", "slot"}:
        found = when[1]
    elif digits and hints & {"number", "phone", "digits", "code", "order", "id", "reference"}:
        found = re.sub(r"[ .-]", "", digits[0])
    elif hints & {"number", "order", "id"} and (value := _spoken_number(words)) is not None:
        found = str(int(value))
    elif whither and hints & {"to", "target", "department", "destination", "who", "person", "whom"}:
        found = whither[1].strip()
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and ("0-9" in pattern or "\\d" in pattern):
        # Not matched against it, since a pattern can be made to take for ever.
        shown = max(_DIGITS.findall(str(schema.get("description", ""))), key=len, default="1")
        found = re.sub(r"[ .-]", "", digits[0] if digits else shown)
    limit = schema.get("maxLength")
    if isinstance(limit, int) and limit >= 0:
        found = found[:limit]
    least = schema.get("minLength")
    if isinstance(least, int) and 0 < least <= MAX_TEXT:
        found = found.ljust(least, ".")
    return found
