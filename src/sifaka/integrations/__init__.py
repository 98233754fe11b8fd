"""Where other frameworks and sifaka meet; each module needs the framework of its name (floor 9).

:mod:`sifaka.integrations.pydantic_ai` keeps the runs of a pydantic-ai agent in sifaka's log.
"""
