"""Runs triage-agent's rules on texts from stdin, in whatever Python has it; imports nothing of ours.

A line in: ``[message, class name or null]`` as JSON. A line out: the type of failure it answers.
"""

import json
import sys

from triage.classifier import RulesClassifier
from triage.taxonomy import Step
from triage.trajectory import Trajectory


def main() -> None:
    classifier = RulesClassifier()
    for line in sys.stdin:
        message, name = json.loads(line)
        step = Step(index=0, action="model call", error=message or name, exception_type=name)
        print(classifier.classify(Trajectory([step]), "").value)


if __name__ == "__main__":
    main()
