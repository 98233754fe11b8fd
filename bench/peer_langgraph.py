"""The chain on LangGraph with its own SQLite saver, the way its documentation builds such a graph.

One node a step, the two critics in parallel, a conditional edge back to generation; the state holds
the documents and, through reducers, all drafts, verdicts and feedback. Critics run side by side, so a
chain of three iterations has 13 tasks in 10 super-steps. ``sync`` makes each super-step durable before
the next; ``exit`` saves once at the end and so survives no crash; ``delta`` is ``sync`` with the beta
channel that stores updates and not whole lists. Alone it runs by ``invoke`` with the plain saver (faster
here than ``ainvoke``), at once by ``ainvoke`` with the asynchronous one. A state kept as one value
instead of reducers would take more than twice the room.
"""

from __future__ import annotations

import asyncio
import operator
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from bench.workload import CRITICS, STEPS_PER_ITERATION, ChainParts


class Whole(TypedDict):
    prompt: str
    documents: list[str]
    drafts: Annotated[list[str], operator.add]
    verdicts: Annotated[list[tuple[bool, str]], operator.add]
    feedback: Annotated[list[str], operator.add]


def _extend(held: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    return [*held, *(item for write in writes for item in write)]


class Delta(TypedDict):
    prompt: str
    documents: list[str]
    drafts: Annotated[list[str], DeltaChannel(_extend)]
    verdicts: Annotated[list[tuple[bool, str]], DeltaChannel(_extend)]
    feedback: Annotated[list[str], DeltaChannel(_extend)]


_running: dict[str, ChainParts] = {}


def _parts(config: dict[str, Any]) -> ChainParts:
    return _running[config["configurable"]["thread_id"]]


def retrieve(state, config):
    return {"documents": _parts(config).retrieve(state["prompt"])}


def generate(state, config):
    return {"drafts": [_parts(config).generate(state["prompt"])]}


def validate(state, config):
    return {"verdicts": [tuple(_parts(config).validate(state["drafts"][-1]))]}


def _critic(number: int):
    def criticise(state, config):
        return {"feedback": [_parts(config).critique(number, state["drafts"][-1])]}

    return criticise


def _awaited(node):
    async def awaited(state, config):
        return node(state, config)

    return awaited


def improve_or_end(state) -> str:
    passed, _message = state["verdicts"][-1]
    return END if passed else "generate"


def build(schema: type, saver: Any, *, awaited: bool = False) -> Any:
    wrap = _awaited if awaited else lambda node: node
    graph = StateGraph(schema)
    for name, node in (("retrieve", retrieve), ("generate", generate), ("validate", validate)):
        graph.add_node(name, wrap(node))
    for number, critic in enumerate(CRITICS):
        name = f"critic_{critic}"
        graph.add_node(name, wrap(_critic(number)))
        graph.add_edge("validate", name)
        # Both critics choose the same way in the same super-step; the target then runs once.
        graph.add_conditional_edges(name, improve_or_end, [END, "generate"])
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "generate")
    graph.add_edge("generate", "validate")
    return graph.compile(checkpointer=saver)


class LangGraphSync:
    schema: type = Whole
    durability = "sync"
    import_statement = (
        "from langgraph.graph import StateGraph; from langgraph.checkpoint.sqlite import SqliteSaver"
    )
    first_commit_script = """
import sqlite3, sys, time
from typing import TypedDict
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

class State(TypedDict):
    prompt: str

def first_step(state):
    print(time.monotonic_ns())  # the input has been committed by now
    return {}

graph = StateGraph(State)
graph.add_node("first_step", first_step)
graph.add_edge(START, "first_step")
graph.add_edge("first_step", END)
con = sqlite3.connect(sys.argv[1] + "/first.db", check_same_thread=False)
run = graph.compile(checkpointer=SqliteSaver(con))
run.invoke({"prompt": "p"}, {"configurable": {"thread_id": "1"}}, durability="sync")
"""

    def open(self, folder: Path) -> None:
        self._folder = folder
        self._con = sqlite3.connect(folder / "langgraph.db", check_same_thread=False)
        self._graph = build(self.schema, SqliteSaver(self._con))

    def _call(self, parts: ChainParts) -> tuple[Any, ...]:
        thread = str(parts.chain)
        _running[thread] = parts
        config = {
            "configurable": {"thread_id": thread},
            "recursion_limit": 10 + STEPS_PER_ITERATION * parts.iterations,
        }
        return {"prompt": parts.prompt}, config

    def run_one(self, parts: ChainParts) -> str:
        state = self._graph.invoke(*self._call(parts), durability=self.durability)
        return state["drafts"][-1]

    async def run_many(self, parts: Sequence[ChainParts]) -> list[str]:
        async with AsyncSqliteSaver.from_conn_string(str(self._folder / "langgraph.db")) as saver:
            graph = build(self.schema, saver, awaited=True)
            states = await asyncio.gather(
                *(graph.ainvoke(*self._call(p), durability=self.durability) for p in parts)
            )
        return [state["drafts"][-1] for state in states]

    def close(self) -> None:
        self._con.close()
        _running.clear()

    def _load(self, folder: Path, chain: int) -> dict[str, Any]:
        con = sqlite3.connect(folder / "langgraph.db", check_same_thread=False)
        graph = build(self.schema, SqliteSaver(con))
        state = graph.get_state({"configurable": {"thread_id": str(chain)}})
        con.close()
        return state.values

    def load_last(self, folder: Path, chain: int, _iterations: int) -> str:
        return self._load(folder, chain)["drafts"][-1]

    def load_all(self, folder: Path, chain: int, _iterations: int) -> list[str]:
        return self._load(folder, chain)["drafts"]


class LangGraphDelta(LangGraphSync):
    schema = Delta


class LangGraphExit(LangGraphSync):
    durability = "exit"
