"""Who answers: sifaka in two ways of asking, a table of statuses, pydantic-ai's classes, triage-agent's rules.

The others know fewer kinds than there are. Each of their answers is read in their favour where that is
possible without knowing the label; triage-agent's few wide types even with the label in hand: a type
counts as right if it covers the label.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.classifier.labelled import Case
from bench.classifier.score import Answer
from sifaka.faults import classify, row
from sifaka.faults.reading import fields, leading_class, statuses

NOW = 1_764_000_000.0

# What anybody would write first.
_STATUS_TABLE = {
    400: "invalid_request",
    401: "auth",
    402: "quota_exhausted",
    403: "permission",
    404: "not_found",
    408: "timeout",
    413: "context_length",
    422: "invalid_request",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}

_OF_PYDANTIC_AI = {
    "ModelRateLimitError": "rate_limit",
    "ModelQuotaExceededError": "quota_exhausted",
    "ModelOverloadedError": "overloaded",
    "ModelUnavailableError": "server_error",
    "ModelServerError": "server_error",
    "ModelTimeoutError": "timeout",
    "ModelConnectionError": "connection",
    "ModelContextWindowExceededError": "context_length",
    "ModelAuthenticationError": "auth",
    "ModelNotFoundError": "not_found",
    "ModelRequestRejectedError": "invalid_request",
    "ContentFilterError": "content_filter",
    "UnexpectedModelBehavior": "malformed_output",
    "ToolRetryError": "validation_failed",
}

# What triage-agent's types cover; the first is the answer where none of them is the label.
_OF_TRIAGE = {
    "external_fault": ("server_error", "rate_limit", "overloaded", "connection"),
    "timeout": ("timeout",),
    "schema_mismatch": ("malformed_output", "validation_failed", "invalid_request"),
    "wrong_tool_called": ("not_found", "malformed_output"),
    "context_overflow": ("context_length",),
    "unknown": ("other",),
}


def of_sifaka_texts(cases: list[Case]) -> list[Answer]:
    """The text as a log shows it, with status and headers."""
    return [_ask(case.text, case) for case in cases]


def of_sifaka_exceptions(cases: list[Case]) -> list[Answer]:
    """An exception of that class where there is one, else the text."""
    return [_ask(case.exception() or case.text, case) for case in cases]


def of_statuses(cases: list[Case]) -> list[Answer]:
    """The status alone, given or in the text."""
    return [_plain(_kind_of_status(_status(case))) for case in cases]


def of_pydantic_ai(cases: list[Case]) -> list[Answer]:
    """The category that its own functions give an error of that provider, status, code and message."""
    answers = [_plain(_OF_PYDANTIC_AI.get(_category(case), "other")) for case in cases]
    return [
        answer._replace(retry_after_s=_seconds_in_header(case))
        for answer, case in zip(answers, cases, strict=True)
    ]


def of_triage(cases: list[Case], python: str) -> list[Answer]:
    """Its rules, in the Python that has it. Raises CalledProcessError if they do not run."""
    lines = [json.dumps([case.message, _name(case) or None]) for case in cases]
    worker = Path(__file__).with_name("triage_worker.py")
    done = subprocess.run(
        [python, str(worker)], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    return [_favour(said, case) for said, case in zip(done.stdout.split(), cases, strict=True)]


def contestants(triage: str | None) -> tuple[dict[str, Callable[[list[Case]], list[Answer]]], list[str]]:
    """The contestants that can run here, and a line on each that cannot. ``triage`` is a Python that has it."""
    here: dict[str, Callable[[list[Case]], list[Answer]]] = {
        "sifaka texts": of_sifaka_texts,
        "sifaka errors": of_sifaka_exceptions,
        "status table": of_statuses,
    }
    missing = []
    if importlib.util.find_spec("pydantic_ai"):
        here["pydantic-ai"] = of_pydantic_ai
    else:
        missing.append("pydantic-ai: not installed")
    python = triage or (sys.executable if importlib.util.find_spec("triage") else None)
    if python:
        here["triage-agent"] = lambda cases: of_triage(cases, python)
    else:
        missing.append("triage-agent: not installed here; --triage names a Python that has it")
    return here, missing


def _ask(error: BaseException | str, case: Case) -> Answer:
    fault = classify(error, status=case.status, headers=case.headers, now=NOW)
    return Answer(fault.kind, fault.transient, fault.retry_after_s)


def _plain(kind: str) -> Answer:
    return Answer(kind, row(kind).transient)


def _status(case: Case) -> int | None:
    return case.status if case.status is not None else next(iter(statuses(case.message)), None)


def _kind_of_status(status: int | None) -> str:
    if status is None:
        return "other"
    return _STATUS_TABLE.get(status) or ("server_error" if status >= 500 else "other")


def _name(case: Case) -> str:
    return (case.exception_type or leading_class(case.message)[0]).rpartition(".")[2]


def _category(case: Case) -> str:
    from pydantic_ai import _model_errors as known

    codes = fields(case.message)[0]
    code, status = next(iter(codes), None), _status(case)
    category = None
    if case.provider in ("gemini", "vertex"):
        named = next((each for each in codes if each.isupper()), None)
        category = known.google_status_category(named, case.message, next(reversed(codes), None))
    elif case.provider == "bedrock":
        category = known.bedrock_code_category(next(reversed(codes), None) or _name(case), case.message)
    elif code is not None or status is not None:
        category = known.openai_compatible_category(status, code, next(iter(codes[1:]), None), case.message)
    if category is None and status is not None:
        category = known.http_status_category(status, case.message)
    return category.__name__ if category else _category_of_class(_name(case))


def _category_of_class(name: str) -> str:
    """How its models wrap what came without a status: by the SDK's class."""
    if name in _OF_PYDANTIC_AI:
        return name
    if "Timeout" in name:
        return "ModelTimeoutError"
    if "Connect" in name or name in ("ReadError", "RemoteProtocolError"):
        return "ModelConnectionError"
    return {"ValidationError": "ToolRetryError"}.get(name, "")


def _seconds_in_header(case: Case) -> float | None:
    """It reads a wait from ``retry-after`` alone, in seconds."""
    stated = (case.headers or {}).get("retry-after", "")
    return float(stated) if stated.isdigit() else None


def _favour(said: str, case: Case) -> Answer:
    covered = _OF_TRIAGE.get(said, ("other",))
    passing = said in ("external_fault", "timeout")  # what its default policy retries
    return Answer(case.label if case.label in covered else covered[0], passing)
