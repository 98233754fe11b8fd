"""The llama.cpp servers of this process: one a model file, loaded when first used (floor 2).

A server has threads of its own, which a fork does not copy: it could be neither used nor destroyed
in the child. So all servers are closed before a fork, and parent and child load theirs again when
they need it (a fraction of a second for a small model). A fork waits for the call in flight.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from sifaka.errors import MissingExtraError, ModelError

__all__ = ["Engine", "engine"]

Chunk = dict[str, Any]

_EXIT_WAIT_S = 5.0


class Engine:
    """One model file. Calls are answered one at a time: that keeps temperature 0 repeatable."""

    def __init__(self, path: str, context_tokens: int, threads: int) -> None:
        self.path = path
        self.context_tokens = context_tokens
        self.threads = threads
        self.lock = threading.Lock()
        self._server: Any = None

    @contextmanager
    def held(self, timeout_s: float | None) -> Generator[None]:
        """The engine for one caller alone; a ModelError after ``timeout_s`` seconds of waiting."""
        if not self.lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s)):
            raise ModelError(
                f"the local model was busy with other calls for {timeout_s:g} s; raise timeout_s",
                kind="timeout",
            )
        try:
            yield
        finally:
            self.lock.release()

    def stream(self, body: dict[str, Any], on_chunk: Callable[[Chunk], bool]) -> None:
        """Answer a chat request; ``on_chunk`` gets each piece and says True to stop.

        To be called while :meth:`held`. An error of ``on_chunk`` stops the answer and is raised.
        """
        # The library calls back from C++, where an interrupt would be swallowed. So it works in a
        # thread that gets none, while the caller waits where one can reach it.
        call = _Call(self._loaded, body, on_chunk)
        worker = threading.Thread(target=call.run, name="sifaka-llama", daemon=True)
        worker.start()
        try:
            worker.join()
        except BaseException:
            call.stop.set()
            worker.join()
            raise
        if call.error is not None:
            raise call.error
        if _leaving.is_set():
            raise SystemExit  # of this daemon thread, without a word

    def _loaded(self) -> Any:
        if self._server is None:
            self._server = _load(self)
        return self._server

    def close(self) -> None:
        """Free the server, its threads and its memory; the next call loads it again."""
        self._server = None


class _Call:
    """One request at work; the first error in it ends it."""

    def __init__(
        self,
        server: Callable[[], Any],
        body: dict[str, Any],
        on_chunk: Callable[[Chunk], bool],
    ) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._server = server
        self._body = {**body, "stream": True}
        self._on_chunk = on_chunk

    def run(self) -> None:
        try:
            self._server().handle_chat_completions(self._body, self._step)
        except BaseException as error:  # noqa: BLE001 (the caller's thread raises it)
            self.error = error

    def _step(self, chunk: Chunk) -> bool:
        if self.stop.is_set() or _leaving.is_set():
            return True
        try:
            return self._on_chunk(chunk)
        except BaseException as error:  # noqa: BLE001 (as above; the library would swallow it)
            self.error = error
            return True


_engines: dict[tuple[str, int, int], Engine] = {}
_engines_lock = threading.Lock()
_leaving = threading.Event()


def engine(path: str, context_tokens: int, threads: int) -> Engine:
    """The process's engine for that file, context size and number of threads."""
    key = (path, context_tokens, threads)
    with _engines_lock:
        found = _engines.get(key)
        if found is None:
            if not _engines:
                import atexit

                atexit.register(_before_exit)
            found = _engines[key] = Engine(*key)
        return found


def _load(one: Engine) -> Any:
    import secrets
    from importlib import import_module

    try:
        xllamacpp: Any = import_module("xllamacpp")  # it has no types
    except ImportError as error:
        raise MissingExtraError("the local model needs: pip install 'sifaka[local]'") from error

    params = xllamacpp.CommonParams()
    params.model.path = one.path
    params.n_ctx = one.context_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = one.threads
    params.n_parallel = 1
    params.verbosity = -1
    params.warmup = False
    params.offline = True
    # A prompt found in a cache is computed in other batches, and temperature 0 would not repeat.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    # The library also listens on a loopback port, where a web page could reach it: nobody knows
    # this key, and nothing of ours goes that way.
    params.api_keys = [secrets.token_urlsafe(32)]
    params.endpoint_slots = False
    params.ui = False
    params.n_threads_http = 1
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the model file {one.path} could not be loaded ({error}); check that it is a complete "
            "GGUF file and that there is memory for it",
            kind="other",
        ) from error


def _before_fork() -> None:
    _engines_lock.acquire()
    for one in _engines.values():
        one.lock.acquire()
        one.close()


def _after_fork() -> None:
    for one in _engines.values():
        one.lock.release()
    _engines_lock.release()


def _before_exit() -> None:
    _leaving.set()
    for one in _engines.values():
        if one.lock.acquire(timeout=_EXIT_WAIT_S):
            one.close()
            one.lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
