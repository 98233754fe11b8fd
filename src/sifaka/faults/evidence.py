"""What can be read off an error without judging it: its chain, its response, its texts (floor 1).

Nothing here may raise, whatever somebody's exception does in ``__str__`` or a property: a fault
while looking at a fault would hide the first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, cast

import msgspec

__all__ = ["LINKS_MAX", "Evidence", "attribute", "chain", "gather", "says"]

LINKS_MAX = 8
_TEXT_CHARS_MAX = 20_000

_PHRASE_OF_STATUS = (
    "bad request|unauthorized|payment required|forbidden|not found|request timeout|too many requests"
    "|request entity too large|payload too large|unprocessable|internal server error|bad gateway"
    "|service (?:temporarily )?unavailable|gateway time-?out|client error|server error"
)


class Evidence(msgspec.Struct, frozen=True):
    """``links`` is the chain of exceptions, outermost first; ``raw`` all texts, as they are."""

    links: tuple[BaseException, ...]
    raw: str
    codes: tuple[str, ...]
    finishes: tuple[str, ...]
    classes: tuple[str, ...]
    statuses: tuple[int, ...]
    headers: Mapping[str, str]
    wait_s: float | None
    in_stream: bool
    unsent: bool
    empty_reply: bool


def gather(error: BaseException | str, status: int | None, headers: Any, body: Any) -> Evidence:
    """All there is: from the arguments first, then from the error and its chain."""
    links = tuple(chain(error)) if isinstance(error, BaseException) else ()
    bodies = [body, *(found for link in links for found in _bodies(link))]
    message = error if isinstance(error, str) else "\n".join(map(says, links))
    raw = _cut("\n".join([message, *(_text(each) for each in bodies if each is not None)]))
    raw = _escaped_quote().sub('"', raw)
    codes, finishes = _fields(raw)
    own_codes = tuple(code for link in links for code in _codes(link))
    own_finishes = tuple(filter(None, (_string(link, "finish_reason") for link in links)))
    statuses = [status] if isinstance(status, int) else []
    statuses += [found for link in links if (found := _status(link)) is not None]
    return Evidence(
        links=links,
        raw=raw,
        codes=own_codes + codes,
        finishes=own_finishes + finishes,
        classes=tuple(_class_names().findall(raw)),
        statuses=tuple(dict.fromkeys([*statuses, *_statuses_in(raw)])),
        headers=_headers(headers, links),
        wait_s=next((w for link in links if (w := _wait_s(link)) is not None), None),
        in_stream=any(map(_in_stream, links)),
        unsent=any(attribute(link, "phase") in ("pool", "connect") for link in links),
        empty_reply=bool(_empty_reply().search(raw)) or _is_blank(body),
    )


def says(error: BaseException) -> str:
    """``str(error)``, or what can be said of one that cannot be printed."""
    with suppress(Exception):
        return str(error)
    return f"({type(error).__name__}, unprintable)"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, outermost first; no link twice, at most eight."""
    pending = [error]
    seen: set[int] = set()
    while pending and len(seen) < LINKS_MAX:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        cause = link.__cause__
        if cause is None and not link.__suppress_context__:
            cause = link.__context__
        pending += [cause] if cause is not None else []
        if isinstance(link, BaseExceptionGroup):
            pending += reversed(cast("BaseExceptionGroup[BaseException]", link).exceptions)


@cache
def _field() -> re.Pattern[str]:
    """A named value in JSON, in a Python literal, in ``key=value`` or in ``Key: value``."""
    return re.compile(
        r"(?<![a-z])(?P<key>(?:provider_?)?(?:error_?)?(?:code|type|status|reason)|error|__type"
        r"|(?:finish|stop|done|block)_?reason)[\"'`]?"
        r"\s{0,3}(?:[:=]|is|was)\s{0,3}"
        r"(?:(?P<quote>[\"'])(?P<quoted>[^\"'\n]{1,80})(?P=quote)"
        r"|(?:\w{1,20}\.)?(?P<bare>[A-Za-z_]\w{2,60}|\d{1,5})(?!\w|\.\w))",
        re.IGNORECASE,
    )


@cache
def _bracketed() -> re.Pattern[str]:
    """A code in brackets: with an underscore or a capital inside, lest it be a word of the text."""
    return re.compile(r"\(([A-Za-z]{1,30}(?:_|(?<=[a-z])[A-Z])[A-Za-z_]{1,60})\)")


@cache
def _escaped_quote() -> re.Pattern[str]:
    return re.compile(r'\\{1,16}"')


@cache
def _class_names() -> re.Pattern[str]:
    return re.compile(
        r"(?<![A-Za-z0-9])[A-Za-z0-9]{2,60}(?:Error|Exception|Timeout|Disconnected|Exceeded|Exhausted)"
        r"(?![a-z])"
    )


@cache
def _status_forms() -> tuple[re.Pattern[str], ...]:
    return (
        re.compile(
            r"(?:status(?:[ _-]?code)?|error[ _-]?code|code|http(?:/[\d.]{1,3})?|error|failed with)"
            r"[\"']?[\s:=(\[]{1,4}[\"']?([45]\d\d)(?![\d.]\d|\d)",
            re.IGNORECASE,
        ),
        re.compile(r"\A[\s\[(]{0,3}([45]\d\d)(?=[\s:,\])]\s{0,2}[\[{(]?[A-Za-z{\"'])"),
        re.compile(rf"(?<![\w.])([45]\d\d)\s(?:{_PHRASE_OF_STATUS})", re.IGNORECASE),
    )


@cache
def _empty_reply() -> re.Pattern[str]:
    """A reply whose text is there and is nothing."""
    return re.compile(
        r"[\"'](?:text|content|response|completion|output|output_text|generated_text|answer)[\"']"
        r"\s{0,2}:\s{0,2}(?:\"\s{0,9}\"|'\s{0,9}'|null|None|\[\s?\])"
        r"|[\"'](?:choices|candidates)[\"']\s{0,2}:\s{0,2}\[\s?\]"
    )


def _fields(raw: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    codes: list[str] = []
    finishes: list[str] = []
    for field in _field().finditer(raw):
        key, value = field["key"].lower(), field["quoted"] or field["bare"]
        if key not in ("reason", "error_reason") and key.endswith("reason"):
            finishes.append(value)
            continue
        codes.append(value)
        if key == "reason" and (value.isupper() or "_" in value):
            finishes.append(value)  # "blocked, reason: SAFETY", not "reason: 2 errors"
    return (*codes, *_bracketed().findall(raw)), tuple(finishes)


def _statuses_in(raw: str) -> Iterable[int]:
    return (int(found) for form in _status_forms() for found in form.findall(raw))


def attribute(thing: object, name: str) -> Any:
    """An attribute of somebody's object, None where there is none or reading it fails."""
    with suppress(Exception):
        return getattr(thing, name, None)
    return None


def _string(thing: object, name: str) -> str:
    value = attribute(thing, name)
    return value if isinstance(value, str) else ""


def _codes(link: BaseException) -> Iterator[str]:
    for name in ("provider_error_code", "code", "error_code", "provider_error_type", "type"):
        if value := _string(link, name):
            yield value


def _status(link: BaseException) -> int | None:
    response = attribute(link, "response")
    holders = ((link, "status_code"), (link, "http_status"), (link, "status"), (link, "code"))
    for thing, name in (*holders, (response, "status_code"), (response, "status")):
        value = attribute(thing, name)
        if isinstance(value, int) and 100 <= value <= 599:
            return int(value)
    meta = _mapping(_mapping(response).get("ResponseMetadata"))
    value = meta.get("HTTPStatusCode")
    return value if isinstance(value, int) else None


def _bodies(link: BaseException) -> Iterator[Any]:
    response = attribute(link, "response")
    yield attribute(link, "body")
    if isinstance(response, Mapping):
        yield cast("Mapping[str, Any]", response)
    else:
        yield attribute(response, "text")


def _headers(given: Any, links: Iterable[BaseException]) -> dict[str, str]:
    sources = [given]
    for link in links:
        response = attribute(link, "response")
        meta = _mapping(_mapping(response).get("ResponseMetadata"))
        sources += [attribute(link, "headers"), attribute(response, "headers"), meta.get("HTTPHeaders")]
    found: dict[str, str] = {}
    for source in sources:
        with suppress(Exception):
            for name, value in source.items():
                found.setdefault(str(name).lower(), str(value))
    return found


def _wait_s(link: BaseException) -> float | None:
    for name in ("retry_after_s", "retry_after"):
        value = attribute(link, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
            return float(value)
    return None


def _in_stream(link: BaseException) -> bool:
    return attribute(link, "in_stream") is True or type(link).__name__ == "EventStreamError"


def _mapping(thing: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", thing) if isinstance(thing, Mapping) else {}


def _is_blank(body: object) -> bool:
    return isinstance(body, (str, bytes)) and not body.strip()


def _text(body: object) -> str:
    if isinstance(body, (bytes, bytearray)):
        return bytes(body[:_TEXT_CHARS_MAX]).decode("utf-8", "replace")
    with suppress(Exception):
        return str(body)
    return ""


def _cut(text: str) -> str:
    """Both ends of a text that is too long: what failed stands first, the cause often last."""
    if len(text) <= _TEXT_CHARS_MAX:
        return text
    half = _TEXT_CHARS_MAX // 2
    return f"{text[:half]}\n{text[-half:]}"
