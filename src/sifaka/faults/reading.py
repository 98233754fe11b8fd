"""What a text says in forms that machines write: fields, statuses, class names, error numbers (floor 1).

Only forms are known here, never what they mean. All patterns have bounded parts and are compiled when
first used; a text is at most some twenty thousand characters when it comes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

__all__ = [
    "class_names",
    "error_numbers",
    "fields",
    "is_empty_reply",
    "last_clause",
    "leading_class",
    "sayings",
    "statuses",
]

_SAYING_CHARS_MAX = 60

_REASON_PHRASES = (
    "bad request|unauthorized|payment required|forbidden|not found|method not allowed|request timeout"
    "|conflict|too many requests|request entity too large|payload too large|unprocessable"
    "|bad gateway|service (?:temporarily )?unavailable|gateway time-?out"
    "|internal|client error|server error|provider returned|status code|gone\\b"
)

_GRPC = {
    "1": "CANCELLED",
    "3": "INVALID_ARGUMENT",
    "4": "DEADLINE_EXCEEDED",
    "5": "NOT_FOUND",
    "7": "PERMISSION_DENIED",
    "8": "RESOURCE_EXHAUSTED",
    "9": "FAILED_PRECONDITION",
    "10": "ABORTED",
    "11": "OUT_OF_RANGE",
    "12": "UNIMPLEMENTED",
    "13": "INTERNAL",
    "14": "UNAVAILABLE",
    "15": "DATA_LOSS",
    "16": "UNAUTHENTICATED",
}


def fields(raw: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The error codes and the finish reasons that a text states as named values."""
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
    codes += [_GRPC[number] for pair in _grpc_code().findall(raw) for number in pair if number in _GRPC]
    codes += [*_bracketed().findall(raw), *_heading().findall(raw), *_error_name().findall(raw)]
    return tuple(codes), tuple(finishes)


def statuses(raw: str) -> Iterable[int]:
    """The HTTP statuses of failures that a text names."""
    return (int(found) for form in _status_forms() for found in form.findall(raw))


def sayings(raw: str) -> Iterator[str]:
    """What a text says in a word or two: all of it, or a short message in a field.

    Machines often say no more than ``Forbidden`` or ``{"message": "timeout"}``.
    """
    for said in (raw.strip().partition("\n")[0], *_message().findall(raw)):
        if 0 < len(said) <= _SAYING_CHARS_MAX:
            yield said


def last_clause(raw: str) -> str:
    """What stands behind the last colon of the first line: ``The call failed: Not Found``."""
    return raw.strip().partition("\n")[0].rpartition(": ")[2]


def class_names(raw: str) -> tuple[str, ...]:
    """Names that look like exception classes, wherever they stand."""
    return tuple(_class_name().findall(raw))


def leading_class(raw: str) -> tuple[str, str]:
    """``("RateLimitError", "openai")`` of ``openai.RateLimitError: …``; empty strings if there is none.

    After a path of modules any capitalised name is a class, on its own only one that sounds like it.
    """
    found = _leading().match(raw)
    if found is None:
        return "", ""
    return found["name"] or found["pathed"], found["path"] or ""


def error_numbers(raw: str) -> tuple[int, ...]:
    """The numbers of the operating system's errors: texts are translated, numbers are not."""
    return tuple(map(int, _error_number().findall(raw)))


def is_empty_reply(raw: str) -> bool:
    """Whether the text shows a reply whose text is there and is nothing."""
    return bool(_empty_reply().search(raw))


@cache
def _field() -> re.Pattern[str]:
    """A named value in JSON, in a Python literal, in ``key=value`` or in ``Key: value``."""
    return re.compile(
        r"(?<![a-z])(?P<key>(?:provider_?)?(?:error_?)?(?:code|type|status|reason)|error|__type"
        r"|(?:finish|stop|done|block)[_ ]?reason)[\"'`]?"
        r"\s{0,3}(?:[:=]|is|was)\s{0,3}"
        r"(?:(?P<quote>[\"'])(?P<quoted>[^\"'\n]{1,80})(?P=quote)"
        r"|(?:\w{1,20}\.)?(?P<bare>[A-Za-z_]\w{2,60}|-?\d{1,5})(?!\w|\.\w))",
        re.IGNORECASE,
    )


@cache
def _message() -> re.Pattern[str]:
    return re.compile(
        r"(?<![a-z])(?:status_)?(?:message|msg|error|detail|title|description)[\"']\s{0,3}:\s{0,3}"
        r"[\"']([^\"'\n]{1,60})[\"']",
        re.IGNORECASE,
    )


@cache
def _grpc_code() -> re.Pattern[str]:
    """``grpc_status: 14``, or the ``code`` of a google.rpc.Status, which has ``details`` too."""
    return re.compile(
        r"(?i:grpc_?(?:status|code))[\"']?\s{0,2}[:=]\s{0,2}(\d{1,2})(?!\d)"
        r"|\"code\"\s{0,2}:\s{0,2}(\d{1,2}),\s{0,9}\"message\"[^{}]{1,2000}\"details\""
    )


@cache
def _bracketed() -> re.Pattern[str]:
    """A code in brackets: with an underscore or a capital inside, lest it be a word of the text."""
    return re.compile(r"\(([A-Za-z]{1,30}(?:_|(?<=[a-z])[A-Z])[A-Za-z_]{1,60})\)")


@cache
def _heading() -> re.Pattern[str]:
    """A code that heads a clause: ``INVALID_ARGUMENT: …``, ``HTTP 400: ThrottlingException: …``."""
    return re.compile(
        r"(?:\A|: |[\"'])([A-Z]{2,30}(?:_[A-Z]{1,30}){1,6}|(?:[A-Z][a-z]{1,30}){1,6}Exception):\s"
    )


@cache
def _error_name() -> re.Pattern[str]:
    """The errors of an operating system or of Node by their names: ``ECONNRESET``, ``ERR_TLS_…``."""
    return re.compile(r"(?<![A-Za-z_])(E[A-Z]{4,14}|EAI_[A-Z]{2,12}|(?:UND_)?ERR_[A-Z_]{3,40})(?![A-Za-z_])")


@cache
def _class_name() -> re.Pattern[str]:
    return re.compile(
        r"(?<![A-Za-z0-9])[A-Za-z0-9]{2,60}(?:Error|Exception|Timeout|Disconnected|Exceeded|Exhausted)"
        r"(?![a-z])"
    )


@cache
def _leading() -> re.Pattern[str]:
    return re.compile(
        r"\s{0,20}(?:(?P<name>[A-Z]\w{1,60}(?:Error|Exception|Timeout|Exceeded|Exhausted))"
        r"|(?P<path>[a-z_]\w{0,60}(?:\.[a-z_]\w{0,60}){0,6})\.(?P<pathed>[A-Z]\w{1,60}))(?=:|\(|\s|\Z)"
    )


@cache
def _status_forms() -> tuple[re.Pattern[str], ...]:
    return (
        re.compile(
            r"(?:status(?:[ _-]?code)?|error[ _-]?code|code|http(?:/[\d.]{1,3})?|error|failed with)"
            r"[\"']?[\s:=(\[]{1,4}[\"']?([45]\d\d)(?![\d.]\d|\d)",
            re.IGNORECASE,
        ),
        re.compile(
            r"\A[\s\[(]{0,3}([45]\d\d)(?=[:,\])]\s{0,2}[\[{(<]?[A-Za-z{\"']|\s{1,3}[\[{(<]{0,2}[!A-Z{\"']"
            r"|\s(?:error|no|the|your?|this|model|invalid|unknown|upstream|failed)\b|\Z)"
        ),
        re.compile(
            r"(?:got|returned|received|gave)(?: an?)?(?: http)? ([45]\d\d)(?! [a-z]+s\b)(?!\d)", re.IGNORECASE
        ),
        re.compile(rf"(?<![\w.])([45]\d\d)\s(?:{_REASON_PHRASES})", re.IGNORECASE),
        re.compile(r"<(?:title|h1)>(?:[^<|]{0,80}\|)?\s{0,9}([45]\d\d)\b", re.IGNORECASE),
        re.compile(r"(?<=: )([45]\d\d)(?=,? (?:<|\{|\"|'|message=))"),  # a client's own short form
        re.compile(r"[\[(]([45]\d\d)[\])]"),
    )


@cache
def _error_number() -> re.Pattern[str]:
    return re.compile(r"(?:\[(?:errno|winerror)|\(os error) (-?\d{1,5})[\])]", re.IGNORECASE)


@cache
def _empty_reply() -> re.Pattern[str]:
    return re.compile(
        r"[\"'](?:text|content|response|completion|output|output_text|generated_text|answer)[\"']"
        r"\s{0,2}:\s{0,2}(?:\"\s{0,9}\"|'\s{0,9}'|null|None|\[\s?\])"
        r"|[\"'](?:choices|candidates)[\"']\s{0,2}:\s{0,2}\[\s?\]"
    )
