"""A real Milvus, closed off from the network (floor 8).

The package ``milvus`` holds the server's own program. It listens on all interfaces whatever its settings
say, so it runs in a network namespace with nothing but loopback; the guard leads one port into it. It also
locks a file in ``/run`` or ``/tmp`` under a fixed name, so it is given empty ones.
"""

from __future__ import annotations

import http.client
import importlib.util
import lzma
import os
import platform
import re
import sys
import urllib.request
from collections.abc import Mapping

from sifaka.errors import UsageError
from sifaka.testing.servers.base import Server

__all__ = ["MilvusServer", "milvus_platform"]

_PROXY_PORT = 19530  # inside a namespace of its own nothing else has it
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*(?:\(\w+\))?\s*(?::\s*(.*?))?\s*\}\}")


def milvus_platform() -> bool:
    """Whether there is a packaged Milvus server for this platform: Linux on x86-64 alone."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


class MilvusServer(Server):
    """Milvus in one process. It takes seconds to start, so share one among many tests.

    It answers neither SIGTERM nor SIGINT, so :meth:`stop` is :meth:`kill`. Needs the right to make
    namespaces; most machines give it to everybody.
    """

    name = "milvus"
    start_s_max = 120.0

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def inside(self) -> int:
        """The port of its proxy, in the namespace."""
        return _PROXY_PORT

    @property
    def environment(self) -> Mapping[str, str]:
        """Where its libraries are; its settings it finds below the folder it runs in."""
        return {"DEPLOY_MODE": "STANDALONE", "LD_LIBRARY_PATH": self._in("bin")}

    def stop(self) -> None:
        """Kill it: no signal makes it leave."""
        self.kill()

    def prepare(self) -> None:
        """Unpack the program (about 250 MB) and write its settings."""
        package = _package()
        for folder in ("bin", "configs", "logs", "data"):
            os.makedirs(self._in(folder), exist_ok=True)
        if not os.path.exists(self._in("bin", "milvus")):
            _unpack(os.path.join(package, "data", "bin"), self._in("bin"))
        with open(os.path.join(package, "data", "config.yaml.template"), encoding="utf-8") as file:
            settings = self._settings(file.read())
        with open(self._in("configs", "milvus.yaml"), "w", encoding="utf-8") as file:
            file.write(settings)
        with open(self._in("configs", "glog.conf"), "w", encoding="utf-8") as file:
            file.write(f"--logtostderr=true\n--minloglevel=2\n--log_dir={self._in('logs')}\n")

    def command(self) -> list[str]:
        """All parts of Milvus in one process."""
        return [self._in("bin", "milvus"), "run", "standalone"]

    def is_ready(self) -> bool:
        """Whether it lists its collections, asked over HTTP: its client would wait, and log."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/vector/collections", timeout=5) as answer:  # noqa: S310 - http, to ourselves
                return b'"code":200' in answer.read()
        except (OSError, http.client.HTTPException):
            return False

    def _settings(self, template: str) -> str:
        ours = {
            "etcd_log_path": self._in("logs", "etcd.log"),
            "system_log_path": self._in("logs"),
            "etcd_data_dir": self._in("data", "etcd.data"),
            "local_storage_dir": self._in("data"),
            "rocksmq_data_dir": self._in("data", "rocksmq"),
        }
        filled = _PLACEHOLDER.sub(lambda found: ours.get(found[1]) or found[2] or "", template)
        return re.sub(r"^( +ip:) *#.*$", r"\1 127.0.0.1", filled, flags=re.MULTILINE)

    def _in(self, *names: str) -> str:
        return os.path.join(self.folder, *names)


def _package() -> str:
    found = importlib.util.find_spec("milvus")
    if found is None or found.origin is None:
        raise UsageError("no Milvus server is installed: pip install milvus==2.3.5 (Linux on x86-64 alone)")
    return os.path.dirname(found.origin)


def _unpack(packed: str, folder: str) -> None:
    import shutil

    # The program last: it is there only when all it needs is.
    for name in sorted(os.listdir(packed), key=lambda name: name.startswith("milvus")):
        target = os.path.join(folder, name.removesuffix(".lzma"))
        with lzma.open(os.path.join(packed, name)) as source, open(target + ".part", "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        os.chmod(target + ".part", 0o700)
        os.replace(target + ".part", target)
