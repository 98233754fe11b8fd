"""How well faults are recognised: sifaka beside a status table and two libraries, on labelled texts.

``python -m bench.classifier [--data FILE] [--triage PYTHON]``
"""
