"""Every Python block of the document that asked for this library runs as it is written.

The network's other end is a local server that speaks the provider's format; the two placeholders of
the document, `your_validator` and `your_critic`, are a ready-made validator and a ready-made critic.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import datetime
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sifaka import Chain, LengthValidator, SelfRefineCritic, Thought, create_model
from sifaka.log.checkpoint import ChainCheckpoint
from sifaka.testing import Answer, ProviderDouble, Refuse

SEED = Path(__file__).with_name("seed.txt").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", SEED, flags=re.DOTALL)


CONTENT = Answer(text="Ethics of AI, in a sentence or two.")
BEHAVES: list[Answer | Refuse] = [CONTENT]
"""What the provider does next."""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderDouble]:
    with ProviderDouble(lambda _request: BEHAVES[0]) as double:
        for name, value in double.environ().items():
            monkeypatch.setenv(name, value)
        yield double
    BEHAVES[0] = CONTENT


class Document:
    """The document's blocks, run one after another in one namespace, as a reader would."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {
            "datetime": datetime,
            "Thought": Thought,
            "your_validator": LengthValidator(min_length=10),
            "your_critic": SelfRefineCritic(),
        }

    def run(self, containing: str) -> str:
        (block,) = [one for one in BLOCKS if containing in one]
        printed = StringIO()
        with redirect_stdout(printed), warnings.catch_warnings(action="ignore"):
            exec(compile(block, "seed.txt", "exec"), self.names)
        return printed.getvalue()


def test_the_document_has_the_blocks_we_know() -> None:
    assert len(BLOCKS) == 9


@pytest.mark.slow
def test_the_whole_document_in_order(provider: ProviderDouble) -> None:
    document = Document()
    names = document.names

    document.run("# Create storage backend")
    document.run("# Create chain with checkpoint storage")
    assert names["result"].text == "Ethics of AI, in a sentence or two."
    assert names["result"].passed
    calls = len(provider.requests)
    assert calls > 1, "a text and its criticism"

    said = document.run("# Create recovery manager")
    assert said == "", "nothing failed, so nothing was suggested"
    assert len(provider.requests) == calls, "a run that is done is not paid again"

    document.run("class ChainCheckpoint:")
    fields = names["ChainCheckpoint"].__annotations__
    assert list(fields) == list(ChainCheckpoint.__struct_fields__)
    assert len(fields) == 11

    document.run("# Create custom recovery action")
    assert names["custom_action"].strategy.value == "modify_parameters"
    assert names["success"] is False, "a run that is done takes no action"

    history = document.run("# Get checkpoint history")
    assert f"Chain executed {len(names['checkpoints'])} steps:" in history
    for step in ("initialization", "pre_retrieval", "generation", "validation", "complete"):
        assert f"- {step}: " in history
    assert names["bottlenecks"]
    assert "generation" in names["bottlenecks"][0] or "criticism" in names["bottlenecks"][0]

    names["chain_id"] = names["chain"].chain_id
    said = document.run("# Analyze recovery patterns for a chain")
    assert "Total recovery attempts: 0" in said

    said = document.run("# Cleanup old checkpoints")
    assert "Cleaned up 0 old checkpoints" in said
    assert names["storage_stats"]["total_checkpoints"] == len(names["checkpoints"])

    names["model"] = create_model("openai:gpt-4o-mini")
    names["Chain"] = partial(Chain, prompt="Write about AI ethics")  # the document leaves the prompt out
    document.run("# With recovery (minimal changes)")
    assert names["result"].text


@pytest.mark.slow
def test_the_analysis_blocks_on_a_run_that_failed(provider: ProviderDouble) -> None:
    BEHAVES[0] = Refuse(status=401, body={"error": {"message": "bad key"}})
    document = Document()
    document.run("# Create storage backend")
    with pytest.raises(Exception, match="auth"):
        document.run("# Create chain with checkpoint storage")
    said = document.run("# Create recovery manager")
    assert "Recovery suggestions:" in said
    calls = len(provider.requests)

    custom = document.run("# Create custom recovery action")
    assert custom == ""
    assert document.names["success"] is True
    assert len(provider.requests) == calls, "applying an action calls nothing"

    document.names["chain_id"] = document.names["chain"].chain_id
    said = document.run("# Analyze recovery patterns for a chain")
    assert "Total recovery attempts: 1" in said
    assert "('modify_parameters', 1)" in said
    assert "('auth', 1)" in said

    BEHAVES[0] = Answer(text="A text that is long enough.")
    assert document.names["chain"].run_with_recovery().text == "A text that is long enough."
    sent = provider.requests[calls].body
    assert sent["temperature"] == 0.3
    assert sent["max_tokens"] == 1000


def test_a_checkpoint_is_what_the_document_says(tmp_path: Path) -> None:
    chain = Chain(
        lambda prompt: f"text for {prompt}", "Write", checkpoint_storage=f"sqlite:///{tmp_path}/s.db"
    )
    chain.run()
    for checkpoint in chain.get_checkpoint_history():
        types = {name: type(getattr(checkpoint, name)) for name in ChainCheckpoint.__struct_fields__}
        assert types == {
            "checkpoint_id": str,
            "chain_id": str,
            "timestamp": datetime,
            "current_step": str,
            "iteration": int,
            "thought": Thought,
            "performance_data": dict,
            "recovery_point": str,
            "completed_validators": list,
            "completed_critics": list,
            "metadata": dict,
        }
        assert msgspec.structs.asdict(checkpoint)["chain_id"] == chain.chain_id
