"""The chain on DBOS with its SQLite system database: one workflow, one ``@DBOS.step`` a paid step.

DBOS leaves SQLite in rollback-journal mode; here the file is put into WAL mode before it is opened,
which DBOS then keeps: it is the faster of the two (by nearly a third), and the same as everybody else's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("DBOS__APPVERSION", "bench")  # else it hashes the sources at each launch

from dbos import DBOS, DBOSClient, SetWorkflowID

from bench.workload import CRITICS, ChainParts, Verdict

_running: dict[int, ChainParts] = {}


@DBOS.step()
async def retrieve(chain: int) -> list[str]:
    return await _running[chain].aretrieve()


@DBOS.step()
async def generate(chain: int) -> str:
    return await _running[chain].agenerate()


@DBOS.step()
async def validate(chain: int) -> tuple[bool, str]:
    return tuple(await _running[chain].avalidate())


@DBOS.step()
async def criticise(chain: int, critic: int) -> str:
    return await _running[chain].acritique(critic)


@DBOS.workflow()
async def tell(chain: int, _prompt: str) -> str:
    await retrieve(chain)
    while True:
        draft = await generate(chain)
        verdict = Verdict(*await validate(chain))
        for critic in range(len(CRITICS)):
            await criticise(chain, critic)
        if verdict.passed:
            return draft


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'dbos.db'}"


class Dbos:
    import_statement = "import dbos"
    first_commit_script = """
import os, sys, time
os.environ["DBOS__APPVERSION"] = "bench"
from dbos import DBOS

@DBOS.workflow()
def first(prompt):
    print(time.monotonic_ns(), flush=True)  # the workflow's start has been committed by now

DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{sys.argv[1]}/first.db",
             "log_level": "CRITICAL", "enable_otlp": False})
DBOS.launch()
first("p")
DBOS.destroy()
"""
    journal_mode = "wal"

    def open(self, folder: Path) -> None:
        con = sqlite3.connect(folder / "dbos.db")
        con.execute(f"PRAGMA journal_mode={self.journal_mode}")
        con.close()
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        DBOS(
            config={
                "name": "bench",
                "system_database_url": _url(folder),
                "log_level": "CRITICAL",
                "enable_otlp": False,
            }
        )
        DBOS.launch()

    async def run_one(self, parts: ChainParts) -> str:
        _running[parts.chain] = parts
        with SetWorkflowID(str(parts.chain)):
            draft = await tell(parts.chain, parts.prompt)
        del _running[parts.chain]
        return draft

    async def run_many(self, parts: Sequence[ChainParts]) -> list[str]:
        return await asyncio.gather(*map(self.run_one, parts))

    def close(self) -> None:
        DBOS.destroy()

    def load_last(self, folder: Path, chain: int, iterations: int) -> str:
        return self.load_all(folder, chain, iterations)[-1]

    def load_all(self, folder: Path, chain: int, _iterations: int) -> list[str]:
        client = DBOSClient(system_database_url=_url(folder))
        steps = client.list_workflow_steps(str(chain))
        client.destroy()
        return [step["output"] for step in steps if step["function_name"] == generate.__qualname__]
