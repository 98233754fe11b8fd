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

from sifaka.faults.reading import (
    class_names,
    error_numbers,
    fields,
    is_empty_reply,
    last_clause,
    leading_class,
    sayings,
    statuses,
)

__all__ = ["LINKS_MAX", "Evidence", "attribute", "chain", "gather", "says"]

LINKS_MAX = 8
_TEXT_CHARS_MAX = 20_000
_CODE_HEADERS = ("x-amzn-errortype", "x-ms-error-code")


class Evidence(msgspec.Struct, frozen=True):
    """``links`` is the chain of exceptions, outermost first; ``raw`` all texts, as they are.

    ``leading`` is the class (and its module) that a bare text begins with.
    """

    links: tuple[BaseException, ...]
    raw: str
    codes: tuple[str, ...]
    finishes: tuple[str, ...]
    classes: tuple[str, ...]
    leading: tuple[str, str]
    numbers: tuple[int, ...]
    sayings: tuple[str, ...]
    last_clause: str
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
    codes, finishes = fields(raw)
    told = _headers(headers, links)
    own_codes = [code for link in links for code in _codes(link)]
    own_codes += [told[name].partition(":")[0] for name in _CODE_HEADERS if name in told]
    own_finishes = tuple(filter(None, (_string(link, "finish_reason") for link in links)))
    known = [status] if isinstance(status, int) else []
    known += [found for link in links if (found := _status(link)) is not None]
    return Evidence(
        links=links,
        raw=raw,
        codes=(*own_codes, *codes),
        finishes=own_finishes + finishes,
        classes=class_names(raw),
        leading=leading_class(raw) if not links else ("", ""),
        numbers=error_numbers(raw),
        sayings=tuple(sayings(raw)),
        last_clause=last_clause(raw),
        statuses=tuple(dict.fromkeys([*known, *statuses(raw)])),
        headers=told,
        wait_s=next((w for link in links if (w := _wait_s(link)) is not None), None),
        in_stream=any(map(_in_stream, links)),
        unsent=any(attribute(link, "phase") in ("pool", "connect") for link in links),
        empty_reply=is_empty_reply(raw) or _is_blank(body),
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
def _escaped_quote() -> re.Pattern[str]:
    return re.compile(r'\\{1,16}"')


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
