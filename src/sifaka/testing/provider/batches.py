"""Both providers' batches (floor 8).

A batch is worked off, and billed, when it is made, and found at work for as many look-ups as its slowest
answer says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from sifaka.testing.provider.kept import Asked, Found, Room, missing, page
from sifaka.testing.provider.script import Received

__all__ = ["MessageBatches", "ResponseBatches", "Result", "Work"]


class Result(msgspec.Struct):
    """What came of one call: a whole body with status 200, or an error's with its status."""

    custom_id: str
    status: int
    body: Any
    look_ups: int = 0


Work = Callable[[Received, str, dict[str, Any], str], Result]
"""Does one call of a batch: the batch's request, the call's path, its body and its custom id."""


class _Batch(msgspec.Struct):
    id: str
    results: list[Result]
    look_ups: int
    created: float
    url: str = ""
    input_file: str = ""
    cancelled: bool = False

    @property
    def at_work(self) -> bool:
        return self.look_ups > 0

    @property
    def failed(self) -> int:
        return sum(one.status != 200 for one in self.results)


class _Batches(Room):
    prefix = ""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work
        self._batches: dict[str, _Batch] = {}

    def row(self, made: _Batch) -> dict[str, Any]:
        """A batch as it is told."""
        raise NotImplementedError

    def new(self, results: list[Result], url: str, input_file: str = "") -> Found:
        """A batch that was just made."""
        name = f"{self.prefix}_{len(self._batches) + 1:06d}"
        slowest = max((one.look_ups for one in results), default=0)
        made = self._batches[name] = _Batch(name, results, slowest, time.time(), url, input_file)
        return 200, self.row(made)

    def list(self, _asked: Asked) -> Found:
        """All batches, the newest first."""
        return 200, page([self.row(one) for one in reversed(self._batches.values())])

    def one(self, _asked: Asked, name: str) -> Found:
        """A batch; this is a look-up of it."""
        made = self._batches.get(name)
        if made is None:
            return missing(f"No batch {name!r}.")
        row = self.row(made)
        made.look_ups = max(0, made.look_ups - 1)
        return 200, row

    def cancel(self, asked: Asked, name: str) -> Found:
        """Cancel a batch that is at work. What was billed is not given back."""
        made = self._batches.get(name)
        if made is not None and made.at_work:
            made.cancelled, made.look_ups = True, 0
        return self.one(asked, name)


class MessageBatches(_Batches):
    """Anthropic's."""

    prefix = "msgbatch"

    def _make(self, asked: Asked) -> Found:
        calls: list[dict[str, Any]] = asked.received.body.get("requests") or []
        path = asked.received.path.removesuffix("/batches")
        results = [self._work(asked.received, path, one["params"], one["custom_id"]) for one in calls]
        return self.new(results, asked.url)

    def _results(self, _asked: Asked, name: str) -> Found:
        made = self._batches.get(name)
        if made is None or made.at_work:
            return missing(f"No results of {name!r}.")
        lines = [msgspec.json.encode(_message_result(one, made.cancelled)) for one in made.results]
        return 200, b"".join(line + b"\n" for line in lines)

    def row(self, made: _Batch) -> dict[str, Any]:
        """A batch as it is told."""
        created = datetime.fromtimestamp(made.created, UTC)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if made.at_work or made.cancelled:
            counts["processing" if made.at_work else "canceled"] = len(made.results)
        else:
            counts |= {"succeeded": len(made.results) - made.failed, "errored": made.failed}
        results = f"{made.url}/v1/messages/batches/{made.id}/results"
        return {
            "id": made.id,
            "type": "message_batch",
            "processing_status": "in_progress" if made.at_work else "ended",
            "request_counts": counts,
            "created_at": created.isoformat(),
            "expires_at": (created + timedelta(hours=24)).isoformat(),
            "ended_at": None if made.at_work else created.isoformat(),
            "archived_at": None,
            "cancel_initiated_at": created.isoformat() if made.cancelled else None,
            "results_url": None if made.at_work else results,
        }

    routes = (
        ("POST", r"/messages/batches$", _make),
        ("GET", r"/messages/batches$", _Batches.list),
        ("GET", r"/messages/batches/([\w-]+)$", _Batches.one),
        ("GET", r"/messages/batches/([\w-]+)/results$", _results),
        ("POST", r"/messages/batches/([\w-]+)/cancel$", _Batches.cancel),
    )


class ResponseBatches(_Batches):
    """OpenAI's, with the files they read and write."""

    prefix = "batch"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._files: dict[str, bytes] = {}

    def _upload(self, asked: Asked) -> Found:
        boundary = asked.received.headers.get("content-type", "").partition("boundary=")[2].strip('"')
        parts = [part for part in asked.raw.split(b"--" + boundary.encode()) if b"filename=" in part]
        if not boundary or not parts:
            return 400, {"error": {"message": "a file is missing", "type": "invalid_request_error"}}
        name = f"file-{len(self._files) + 1:06d}"
        self._files[name] = parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return 200, {
            "id": name,
            "object": "file",
            "bytes": len(self._files[name]),
            "created_at": int(time.time()),
            "filename": "batch.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def _content(self, _asked: Asked, name: str) -> Found:
        return (200, self._files[name]) if name in self._files else missing(f"No file {name!r}.")

    def _drop(self, _asked: Asked, name: str) -> Found:
        gone = self._files.pop(name, None)
        return 200, {"id": name, "object": "file", "deleted": gone is not None}

    def _make(self, asked: Asked) -> Found:
        source = str(asked.received.body.get("input_file_id"))
        if source not in self._files:
            return missing(f"No file {source!r}.")
        calls = [msgspec.json.decode(line) for line in self._files[source].splitlines() if line.strip()]
        results = [self._work(asked.received, one["url"], one["body"], one["custom_id"]) for one in calls]
        status, row = self.new(results, asked.url, source)
        output = [msgspec.json.encode(_output_line(one)) for one in results]
        self._files[f"{row['id']}-output"] = b"".join(line + b"\n" for line in output)
        return status, row

    def row(self, made: _Batch) -> dict[str, Any]:
        """A batch as it is told."""
        status = "in_progress" if made.at_work else "cancelled" if made.cancelled else "completed"
        done = status == "completed"
        return {
            "id": made.id,
            "object": "batch",
            "endpoint": "/v1/responses",
            "completion_window": "24h",
            "created_at": int(made.created),
            "input_file_id": made.input_file,
            "output_file_id": f"{made.id}-output" if done else None,
            "error_file_id": None,
            "errors": None,
            "metadata": {},
            "request_counts": {
                "total": len(made.results),
                "completed": len(made.results) - made.failed if done else 0,
                "failed": made.failed if done else 0,
            },
            "status": status,
        }

    routes = (
        ("POST", r"/files$", _upload),
        ("GET", r"/files/([\w-]+)/content$", _content),
        ("DELETE", r"/files/([\w-]+)$", _drop),
        ("POST", r"/batches$", _make),
        ("GET", r"/batches$", _Batches.list),
        ("GET", r"/batches/([\w-]+)$", _Batches.one),
        ("POST", r"/batches/([\w-]+)/cancel$", _Batches.cancel),
    )


def _message_result(one: Result, cancelled: bool) -> dict[str, Any]:
    if cancelled:
        result: dict[str, Any] = {"type": "canceled"}
    elif one.status == 200:
        result = {"type": "succeeded", "message": one.body}
    else:
        result = {"type": "errored", "error": one.body}
    return {"custom_id": one.custom_id, "result": result}


def _output_line(one: Result) -> dict[str, Any]:
    response = {"status_code": one.status, "request_id": f"req_{one.custom_id}", "body": one.body}
    return {
        "id": f"batch_req_{one.custom_id}",
        "custom_id": one.custom_id,
        "response": response,
        "error": None,
    }
