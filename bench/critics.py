"""Does a critic help? ``python -m bench.critics [--prompts 40] [--iterations 3] [--quick] [--only a,b]``.

The local model writes a text for each of 40 prompts whose constraints a program can check (length,
required words, JSON of a form). Each arm gets a few improvements: by the verdicts of the validators alone, or
by one critic beside them. The measure is how the share of prompts that pass grows, against plain
resampling: draw again, from the same prompt, until a draw passes or as many tokens (read and written) are spent.

All arms and the resampling begin with the same first draft. Resampling at equal cost is read from its own
curve, mean tokens against share passed, at the mean tokens of the arm; both stop paying for a prompt that
has passed. The intervals are 95 % of a bootstrap over prompts, arm and resampling drawn together.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from sifaka import critics
from sifaka.chain import Chain
from sifaka.errors import ChainError
from sifaka.models import create_model
from sifaka.parts import Reply
from sifaka.recovery import RecoveryManager
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.clock import FakeClock
from sifaka.thought import Thought, ValidationResult
from sifaka.validators import LengthValidator, RegexValidator

OUT = Path(__file__).resolve().parent / "out"
TEXT_TOKENS, CRITIC_TOKENS, TEMPERATURE = 120, 400, 0.7
BOOTSTRAPS = 1_000
QUICK_PROMPTS, QUICK_ITERATIONS = 8, 1
MORE_DRAWS = 1.3
"""Resampling is drawn until it has spent this many times what the costliest arm did, for its curve to reach."""

LENGTH = (
    ("Describe the sea in one short sentence.", 3, 12),
    ("Say in one sentence why people sleep.", 6, 18),
    ("Write a short greeting to a new neighbour.", 5, 20),
    ("Explain rain to a child in two short sentences.", 10, 30),
    ("Give one tip for a better breakfast, in a sentence.", 6, 16),
    ("Write a title for a book about bees.", 2, 6),
    ("Write a slogan for a bicycle shop.", 3, 8),
    ("Describe winter in exactly one sentence.", 5, 15),
    ("Write a paragraph of about 60 words about trees.", 50, 70),
    ("Write a paragraph of about 40 words about trains.", 32, 48),
    ("Say thank you to a teacher in at most 15 words.", 4, 15),
    ("Name three fruits and nothing else.", 3, 6),
    ("Answer in one word: what colour is grass?", 1, 1),
    ("Write a reminder to buy milk, in at most eight words.", 3, 8),
)
WORDS = (
    ("Write a sentence about a garden.", ("rose", "spade", "robin", "hedge")),
    ("Write a sentence about a journey.", ("train", "window", "suitcase", "late")),
    ("Write two sentences about cooking.", ("onion", "pan", "salt")),
    ("Write two sentences about music.", ("drum", "quiet", "trumpet", "barn")),
    ("Write a sentence about the night.", ("owl", "moon", "ladder")),
    ("Write a sentence about school.", ("chalk", "bell", "apple")),
    ("Write two sentences about the weather.", ("wind", "umbrella", "puddle")),
    ("Write a sentence about a market.", ("cheese", "basket", "coin", "goat")),
    ("Write two sentences about a river.", ("bridge", "trout", "mill", "boots")),
    ("Write a sentence about a dog.", ("ball", "tail", "kettle")),
    ("Write two sentences about money.", ("coin", "bank", "save", "pocket")),
    ("Write a sentence about a library.", ("lamp", "silence", "stairs", "cat")),
    ("Write two sentences about the mountains.", ("snow", "path", "eagle")),
)
FORMS = (
    ("a person named Ada who is 36 years old", {"name": str, "age": int}),
    ("a city and its country", {"city": str, "country": str}),
    ("a book with its title and its number of pages", {"title": str, "pages": int}),
    ("a colour and whether it is warm", {"colour": str, "warm": bool}),
    ("a shopping list of three things", {"items": list}),
    ("a product and its price", {"product": str, "price": float}),
    ("the weather of today in degrees", {"weather": str, "degrees": float}),
    ("a dog with its name, breed and age", {"name": str, "breed": str, "age": int}),
    ("a film, its year, and the names of its actors", {"film": str, "year": int, "actors": list}),
    ("a recipe with a title and a list of steps", {"title": str, "steps": list}),
    ("a song and its length in seconds", {"song": str, "seconds": int}),
    ("a planet and whether it has rings", {"planet": str, "rings": bool}),
    ("a train with its number and the towns it stops at", {"number": int, "stops": list}),
)


class Fields:
    """Passes a JSON object that has these fields with these types, and no others. A fence is forgiven."""

    pure = True
    name = "json"

    def __init__(self, fields: dict[str, type]) -> None:
        self.fields = fields

    def validate(self, thought: Thought) -> ValidationResult:
        wrong = list(self._wrong(thought.text))
        return ValidationResult(not wrong, "; ".join(wrong), issues=tuple(wrong))

    def _wrong(self, text: str) -> Iterator[str]:
        bare = re.sub(r"^```\w*\n|\n?```$", "", text.strip())
        try:
            data = json.loads(bare)
        except (ValueError, RecursionError) as error:
            yield f"the text is not JSON: {error}"
            return
        if not isinstance(data, dict):
            yield "the JSON is not an object"
            return
        for name, kind in self.fields.items():
            value = data.get(name)
            if name not in data:
                yield f'the field "{name}" is missing'
            elif not isinstance(value, (int, float) if kind is float else kind) or (
                kind is not bool and isinstance(value, bool)
            ):
                yield f'the field "{name}" has to be a {kind.__name__}'
        if extra := sorted(set(data) - set(self.fields)):
            yield f"there are fields that were not asked for: {', '.join(extra)}"


class Task(NamedTuple):
    """A prompt, its kind, and what its text has to pass."""

    prompt: str
    kind: str
    validator: Any


def tasks(number: int) -> list[Task]:
    """The first ``number`` tasks, the kinds in turn."""
    by_kind = [
        [
            Task(f"{say} {_range(low, high)}", "length", LengthValidator(low, high, unit="words"))
            for say, low, high in LENGTH
        ],
        [
            Task(
                f"{say} Use the words: {', '.join(words)}.",
                "words",
                RegexValidator({f'the word "{word}"': rf"(?i)\b{word}" for word in words}),
            )
            for say, words in WORDS
        ],
        [
            Task(
                f"Answer with JSON alone: an object for {what}, with the fields "
                + ", ".join(f'"{name}" ({kind.__name__})' for name, kind in fields.items()),
                "json",
                Fields(fields),
            )
            for what, fields in FORMS
        ],
    ]
    longest = max(map(len, by_kind))
    return [kind[i] for i in range(longest) for kind in by_kind if i < len(kind)][:number]


def _range(low: int, high: int) -> str:
    return f"Use {low} to {high} words." if high > low else "Use no other word."


ARMS: dict[str, Callable[[Any], Any] | None] = {
    "verdicts alone": None,
    "self-refine": lambda model: critics.SelfRefineCritic(model, max_tokens=TEXT_TOKENS),
    "prompt": lambda model: critics.PromptCritic(
        "Asked: {prompt}\n\nWritten: {text}\n\nFound by checks:\n{verdicts}\n\nSay how to mend the text.",
        model=model,
        max_tokens=CRITIC_TOKENS,
    ),
    "reflexion": lambda model: critics.ReflexionCritic(model, max_tokens=CRITIC_TOKENS),
    "constitutional": lambda model: critics.ConstitutionalCritic(model=model, max_tokens=CRITIC_TOKENS),
    "n-critics": lambda model: critics.NCriticsCritic(model=model, max_tokens=CRITIC_TOKENS),
    "self-rag": lambda model: critics.SelfRAGCritic(model, max_tokens=CRITIC_TOKENS),
    "self-consistency": lambda model: critics.SelfConsistencyCritic(model, max_tokens=CRITIC_TOKENS),
    "meta-rewarding": lambda model: critics.MetaRewardingCritic(model, max_tokens=CRITIC_TOKENS),
}


class Counted:
    """The local model, its tokens counted, each call of a role drawn with a seed of its own."""

    def __init__(self, model: Any, role: str, task: str, ledger: list[tuple[str, int]]) -> None:
        self.name = f"counted-{role}"
        self.accepts = frozenset({"system_prompt", "temperature", "max_tokens", "json_schema"})
        self._model, self._role, self._task, self._ledger = model, role, task, ledger

    def generate(self, prompt: str, **options: Any) -> Reply:
        number = sum(role == self._role for role, _ in self._ledger)
        seed = crc32(f"{self._role}/{self._task}/{number}".encode()) >> 1
        reply = self._model.generate(prompt, **{**options, "seed": seed})
        self._ledger.append((self._role, reply.usage.input_tokens + reply.usage.output_tokens))
        return reply


class Run(NamedTuple):
    """One prompt in one arm: when it passed (None: never), tokens up to each iteration, its critic's say."""

    passed_at: int | None
    spent: list[int]
    asked: int = 0
    content: int = 0
    faults: int = 0

    def passed(self, iteration: int) -> bool:
        return self.passed_at is not None and self.passed_at <= iteration


def run_arm(model: Any, arm: str, task: Task, iterations: int) -> Run:
    ledger: list[tuple[str, int]] = []
    storage = InMemoryStorage()
    writer = Counted(model, "text", task.prompt, ledger)
    chain = Chain(
        writer,
        task.prompt,
        checkpoint_storage=storage,
        max_improvement_iterations=iterations,
        always_apply_critics=False,
        clock=FakeClock(),
    ).with_options(temperature=TEMPERATURE, max_tokens=TEXT_TOKENS, allow_partial_results=True)
    chain.validate_with(task.validator)
    make = ARMS[arm]
    if make is not None:
        chain.improve_with(make(Counted(model, "critic", task.prompt, ledger)))
    faults = 0
    try:
        thought = chain.run_with_recovery()
    except ChainError as error:
        thought, faults = error.thought, 1
    faults += len(RecoveryManager(storage).get_recovery_history(chain.chain_id))
    feedback = [one for each in (*thought.history, thought) for one in each.critic_feedback]
    asking = sum(one.needs_improvement for one in feedback)
    passed_at = thought.iteration if thought.passed else None
    return Run(passed_at, _spent(ledger, iterations), asking, len(feedback) - asking, faults)


def _spent(ledger: Sequence[tuple[str, int]], iterations: int) -> list[int]:
    """Tokens up to and with each iteration's text; a run that ended earlier spends no more."""
    total, marks = 0, list[int]()
    for role, tokens in ledger:
        total += tokens
        if role == "text":
            marks.append(total)
    marks[-1] = total
    padded = [*marks, *[total] * iterations]
    return [*padded[:iterations], total]


def resample(model: Any, task: Task, budget: float) -> list[tuple[int, bool]]:
    """Draws until one passes or ``budget`` tokens are spent: the tokens so far, and whether it passed."""
    ledger: list[tuple[str, int]] = []
    writer = Counted(model, "text", task.prompt, ledger)
    draws: list[tuple[int, bool]] = []
    while not draws or (not draws[-1][1] and draws[-1][0] < budget):
        text = writer.generate(task.prompt, temperature=TEMPERATURE, max_tokens=TEXT_TOKENS).text
        passed = task.validator.validate(Thought(prompt=task.prompt, text=text)).passed
        draws.append((sum(tokens for _, tokens in ledger), passed))
    return draws


def at_cost(drawn: Sequence[list[tuple[int, bool]]], tokens: float) -> float:
    """The share that resampling passes when it spends ``tokens`` a prompt on average."""
    last = (0.0, 0.0)
    for n in range(max(map(len, drawn))):
        at = [draws[min(n, len(draws) - 1)] for draws in drawn]
        point = (sum(one for one, _ in at) / len(at), sum(passed for _, passed in at) / len(at))
        if point[0] >= tokens:
            if n == 0 or point[0] == last[0]:
                return point[1]
            return last[1] + (point[1] - last[1]) * (tokens - last[0]) / (point[0] - last[0])
        last = point
    return last[1]


def difference(runs: Sequence[Run], drawn: Sequence[list[tuple[int, bool]]], iteration: int) -> float:
    """Share passed by the arm, less that of resampling at the arm's mean tokens."""
    tokens = sum(run.spent[iteration] for run in runs) / len(runs)
    return sum(run.passed(iteration) for run in runs) / len(runs) - at_cost(drawn, tokens)


def interval(
    runs: Sequence[Run], drawn: Sequence[list[tuple[int, bool]]], iteration: int
) -> tuple[float, float]:
    """The middle 95 % of the difference when the prompts are drawn again with replacement."""
    rng = random.Random(20_230_317)
    seen: list[float] = []
    for _ in range(BOOTSTRAPS):
        chosen = rng.choices(range(len(runs)), k=len(runs))
        seen.append(difference([runs[i] for i in chosen], [drawn[i] for i in chosen], iteration))
    seen.sort()
    return seen[int(0.025 * BOOTSTRAPS)], seen[int(0.975 * BOOTSTRAPS) - 1]


def row(
    arm: str, runs: Sequence[Run], drawn: Sequence[list[tuple[int, bool]]], iterations: int
) -> dict[str, Any]:
    low, high = interval(runs, drawn, iterations)
    tokens = sum(run.spent[iterations] for run in runs) / len(runs)
    return {
        "arm": arm,
        "passed": [sum(run.passed(i) for run in runs) / len(runs) for i in range(iterations + 1)],
        "tokens": [round(sum(run.spent[i] for run in runs) / len(runs)) for i in range(iterations + 1)],
        "resampling_at_equal_tokens": at_cost(drawn, tokens),
        "difference": difference(runs, drawn, iterations),
        "interval_95": [low, high],
        "asked_for_improvement": sum(run.asked for run in runs),
        "was_content": sum(run.content for run in runs),
        "recoveries": sum(run.faults for run in runs),
    }


def line(one: dict[str, Any]) -> str:
    shares = " ".join(f"{share:5.0%}" for share in one["passed"])
    low, high = one["interval_95"]
    said = one["asked_for_improvement"] + one["was_content"]
    asked = f"{one['asked_for_improvement'] / said:4.0%}" if said else "   -"
    return (
        f"{one['arm']:<17} {shares} {one['tokens'][-1]:>8} {one['resampling_at_equal_tokens']:>10.0%} "
        f"{one['difference']:>+8.0%}  [{low:+.0%}, {high:+.0%}]".ljust(17 + 6 * len(one["passed"]) + 47)
        + f"{asked:>6} {one['recoveries']:>7}"
    )


def head(iterations: int) -> str:
    shares = " ".join(f"{'it. ' + str(i):>5}" for i in range(iterations + 1))
    return (
        f"{'improved by':<17} {shares} {'tokens':>8} {'resampled':>10} {'differs':>8}  {'95 %':<16}"
        f"{'asks':>6} {'faults':>7}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.critics", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--prompts", type=int, default=40, help="how many of the 40 (default: all)")
    parser.add_argument(
        "--iterations", type=int, default=3, help="improvements after the first text (default: 3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_PROMPTS} prompts, {QUICK_ITERATIONS} improvement"
    )
    parser.add_argument("--only", default=",".join(ARMS), help=f"arms, by comma: {', '.join(ARMS)}")
    chosen = parser.parse_args()
    if unknown := set(chosen.only.split(",")) - set(ARMS):
        parser.error(f"no such arm: {', '.join(sorted(unknown))}")
    number, iterations = (
        (QUICK_PROMPTS, QUICK_ITERATIONS) if chosen.quick else (chosen.prompts, chosen.iterations)
    )
    return report(tasks(number), iterations, chosen.only.split(","))


def report(chosen: list[Task], iterations: int, arms: Sequence[str]) -> int:
    """Run all arms, print the table, write it with every value to a file."""
    begun, model = time.perf_counter(), create_model("local:smollm2")
    runs: dict[str, list[Run]] = {}
    for arm in arms:
        runs[arm] = [run_arm(model, arm, task, iterations) for task in chosen]
        print(f"… {arm}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    most = [MORE_DRAWS * max(runs[arm][i].spent[-1] for arm in arms) for i in range(len(chosen))]
    drawn = [resample(model, task, budget) for task, budget in zip(chosen, most, strict=True)]
    rows = [row(arm, runs[arm], drawn, iterations) for arm in arms]
    kinds = {task.kind: [i for i, one in enumerate(chosen) if one.kind == task.kind] for task in chosen}
    print(f"{len(chosen)} prompts, improvements: {iterations}, {model.name}, temperature {TEMPERATURE}\n")
    print(head(iterations))
    for one in rows:
        print(line(one))
    for kind, which in kinds.items():
        shares = ", ".join(
            f"{arm} {sum(runs[arm][i].passed(iterations) for i in which) / len(which):.0%}" for arm in arms
        )
        print(f"\n{kind} ({len(which)}): {shares}", end="")
    print("\n\ntokens: read and written, a prompt; resampled: what resampling passes with as many")
    print("asks: how often the critic asked for improvement; faults: recovery actions taken")
    seconds = time.perf_counter() - begun
    OUT.mkdir(exist_ok=True)
    path = OUT / f"critics-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    every = {arm: [run._asdict() for run in runs[arm]] for arm in arms}
    told = {"prompts": [task.prompt for task in chosen], "rows": rows, "runs": every, "resampling": drawn}
    path.write_text(json.dumps({"iterations": iterations, "seconds": seconds, **told}, indent=1))
    print(f"{seconds:.0f} s; every value: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
