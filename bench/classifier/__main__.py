"""``python -m bench.classifier [--data FILE] [--triage PYTHON] [--misses]``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import process_time

from bench.classifier.contestants import contestants
from bench.classifier.labelled import SAMPLE, Case, load
from bench.classifier.score import Score
from bench.report import OUT
from bench.table import Bar, Row, header

MACRO_F1 = 97.0
SUBJECT = "sifaka texts"
_SHORT = 9


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.classifier",
        description="Accuracy of the recognition of faults, beside a status table, pydantic-ai and triage-agent.",
    )
    parser.add_argument("--data", type=Path, default=SAMPLE, help="labelled texts, one JSON object a line")
    parser.add_argument("--triage", help="a Python that has triage-agent, if this one has not")
    parser.add_argument("--misses", action="store_true", help="print each wrong answer of sifaka's")
    chosen = parser.parse_args()
    cases = load(chosen.data)
    here, missing = contestants(chosen.triage)
    scores: dict[str, Score] = {}
    began = process_time()
    for name, answer in here.items():
        scores[name] = Score(cases, answer(cases))
    print(
        f"{len(cases)} clear texts of {len({case.label for case in cases})} kinds from {chosen.data.name}\n"
    )
    rows = _rows(scores)
    print(header(tuple(scores), barred=True))
    for row in rows:
        print(row.to_line())
    subject = scores[SUBJECT]
    met = subject.macro_f1 * 100 >= MACRO_F1
    print(f"\nmacro-F1 of {SUBJECT}: bar >= {MACRO_F1:g} %: {'met' if met else 'MISSED'}")
    _print_kinds(scores)
    _print_confusion(subject)
    _print_dangerous(scores)
    if chosen.misses:
        _print_misses(subject)
    for line in missing:
        print(f"not run: {line}")
    print("  triage-agent has few types: one counts as right if it covers the label; it knows no waits")
    print(
        f"  written: {_write(chosen.data, cases, scores)}; {process_time() - began:.1f} s of processor time"
    )
    return 0


def _rows(scores: dict[str, Score]) -> list[Row]:
    names = tuple(scores)

    def row(key: str, label: str, unit: str, value: dict[str, float], bar: Bar | None = None) -> Row:
        made = Row(key, label, unit, bar, columns=names, judged=("sifaka texts", "sifaka errors"))
        made.add_round(dict(value), floor=None)
        return made

    return [
        row("accuracy", "accuracy", "%", {n: s.accuracy * 100 for n, s in scores.items()}),
        row("macro_f1", "macro-F1", "%", {n: s.macro_f1 * 100 for n, s in scores.items()}),
        row(
            "dangerous",
            "dangerous: lasting called passing",
            "",
            {n: float(len(s.dangerous)) for n, s in scores.items()},
            Bar(0),
        ),
        row("timid", "timid: passing called lasting", "", {n: float(s.timid) for n, s in scores.items()}),
        row("waits", "stated waits read right", "%", {n: _waits(s) for n, s in scores.items()}),
        row(
            "invented",
            "waits read where none is stated",
            "",
            {n: float(s.waits[2]) for n, s in scores.items()},
        ),
    ]


def _waits(score: Score) -> float:
    right, stated, _ = score.waits
    return 100 * right / stated if stated else 100.0


def _print_kinds(scores: dict[str, Score]) -> None:
    subject = scores[SUBJECT]
    print(f"\n{'kind':<19}{'texts':>6}{'precision':>11}{'recall':>8}" + "".join(f"{n:>15}" for n in scores))
    for kind in subject.kinds:
        precision, recall, _ = subject.f1(kind)
        present = sum(n for (label, _), n in subject.confusion.items() if label == kind)
        cells = "".join(f"{score.f1(kind)[2]:15.2f}" for score in scores.values())
        print(f"{kind:<19}{present:>6}{precision:11.2f}{recall:8.2f}{cells}")
    print("  precision and recall of sifaka texts; then the F1 of each contestant")


def _print_confusion(score: Score) -> None:
    """The matrix: a line for each label, a column for each answer, both in the same order."""
    kinds = sorted({kind for pair in score.confusion for kind in pair})
    print(f"\n{'label / answer':<19}" + "".join(kind[:_SHORT].rjust(_SHORT + 1) for kind in kinds))
    for label in kinds:
        counts = [score.confusion[label, kind] for kind in kinds]
        print(f"{label:<19}" + "".join(f"{count or '.':>{_SHORT + 1}}" for count in counts))


def _print_dangerous(scores: dict[str, Score]) -> None:
    for name in ("sifaka texts", "sifaka errors"):
        for case, answer in scores[name].dangerous:
            print(f"\nDANGEROUS ({name}): {case.label} called {answer.kind}: {case.text[:200]!r}")
    print()


def _print_misses(score: Score) -> None:
    for case, answer in score.pairs:
        if case.label != answer.kind:
            print(f"{case.label} called {answer.kind} [{case.provider}] {case.status}: {case.text[:200]!r}")


def _write(data: Path, cases: list[Case], scores: dict[str, Score]) -> Path:
    OUT.mkdir(exist_ok=True)
    content = {
        "data": data.name,
        "texts": len(cases),
        "contestants": {
            name: {
                "accuracy": score.accuracy,
                "macro_f1": score.macro_f1,
                "dangerous": len(score.dangerous),
                "timid": score.timid,
                "waits": score.waits,
                "f1": {kind: score.f1(kind)[2] for kind in score.kinds},
            }
            for name, score in scores.items()
        },
    }
    path = OUT / f"classifier-{data.stem}.json"
    path.write_text(json.dumps(content, indent=1))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
