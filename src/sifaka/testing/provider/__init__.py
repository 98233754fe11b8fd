"""A provider on this machine: a real HTTP server with a script and a billing ledger (floor 8).

::

    with ProviderDouble([Refuse(429), Answer("Lemurs leap.")]) as double:
        environment.update(double.environ())
        ...
        assert len(double.requests) == 2
        assert double.billed == 1

It speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, streamed too; keeps background
responses, stored completions and both providers' batches, and lets them be looked up. It cannot tell that it
is a test that calls it: requests come over a socket, through the providers' libraries.

======================  =====================================================================================
:class:`Answer`         answers with a text, whole or streamed; with a finish reason and tokens as you like
:class:`Refuse`         an error status, with headers and a body
:class:`Overload`       529, or an error inside a stream that began well
:class:`Hang`           falls silent, at once or inside a stream
:class:`Cut`            breaks the connection after so many bytes, or ends a stream without its last event
:class:`Raw`            bytes as they are: bad JSON, or nothing
:class:`Throttle`       a rate limit that is a real token bucket, with the provider's headers
======================  =====================================================================================
"""

from __future__ import annotations

from sifaka.testing.provider import anthropic as anthropic
from sifaka.testing.provider import openai as openai
from sifaka.testing.provider.bucket import Throttle
from sifaka.testing.provider.double import ProviderDouble
from sifaka.testing.provider.script import (
    Answer,
    Behaviour,
    Bill,
    Cut,
    Hang,
    Overload,
    Raw,
    Received,
    Refuse,
    Script,
)

__all__ = [
    "Answer",
    "Behaviour",
    "Bill",
    "Cut",
    "Hang",
    "Overload",
    "ProviderDouble",
    "Raw",
    "Received",
    "Refuse",
    "Script",
    "Throttle",
]
