"""The one chain that everybody runs: its sizes, its texts and the parts that answer at once.

Five 2 kB documents are retrieved; each iteration then brings one 4 kB text, one validation and two
critics of 0.8 kB. Three iterations are 13 paid steps and 27 kB of content. The texts are made of
sentence patterns filled from a vocabulary with Zipf weights, seeded by chain and iteration: the
same on every machine, no two alike, and about as compressible as English. They are made before a
clock starts, so that what is measured is the price of durability and nothing else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import NamedTuple

DOCUMENTS = 5
DOCUMENT_BYTES = 2_000
DRAFT_BYTES = 4_000
CRITIQUE_BYTES = 800
CRITICS = ("clarity", "evidence")
STEPS_PER_ITERATION = 2 + len(CRITICS)

_VOCABULARY = {
    # Most frequent first: the weight of a word is 1 / (rank + 2).
    "noun": """time people year water city house work part place system group number night point home
        river question story fact month lot right study book eye job word business issue side kind head
        service friend father power hour game line end member law car community name president team
        minute idea body information back parent face level office door health person art war history
        party result change morning reason research girl guy moment air teacher force education foot boy
        age policy process music market sense nation plan college interest death experience effect class
        control field development role effort rate heart drug show leader light voice wife police mind
        price report decision view relationship town road arm difference value building action season
        society tax director position player record paper space ground form event official matter centre
        couple site project activity star table need court oil situation cost industry figure street
        image phone data picture practice piece land product doctor wall patient worker news test movie
        north love support technology step baby computer type attention film tree source organisation
        hair window culture chance brother energy period course summer plant opportunity term letter
        condition choice rule daughter south husband floor campaign material population call economy
        hospital church risk fire future bank west sport board subject officer rest behaviour performance
        top goal second bed order author blood agency nature colour store sound movement page race
        concern series language response animal factor decade article east artist scene stock career
        treatment approach size dog fund media sign thought list individual quality pressure answer
        resource meeting disease success cup amount ability staff character growth loss degree attack
        region television box training trade deal election feeling standard bill message analysis benefit
        sex lawyer section glass skill sister professor operation crime stage authority design sort
        knowledge gun station strategy truth song example environment leg dark version harbour bridge
        lantern orchard valley granite ledger archive compass furnace meadow cathedral pilgrim quarry""",
    "verb": """made found gave told called tried asked needed felt became left put kept let began helped
        showed heard played ran moved lived believed brought happened wrote sat stood lost paid met
        included continued set learned changed led understood watched followed stopped created spoke read
        spent grew opened walked won taught offered remembered considered appeared bought served died
        sent built stayed fell cut reached killed raised passed sold decided returned explained hoped
        developed carried broke received agreed supported hit produced ate covered caught drew chose
        pointed listened realised placed closed increased noticed wished joined entered shared sang
        measured described compared examined repaired gathered abandoned crossed questioned improved
        praised rebuilt recorded translated weighed ignored feared settled traded defended""",
    "adjective": """other new good high old great big small large national young different black long
        little important political bad white real best social only public sure low early able human local
        late hard major better economic strong possible whole free military true federal international
        full special easy clear recent certain personal open red difficult available likely short single
        medical current wrong private past foreign fine common poor natural significant similar hot dead
        central happy serious ready simple left physical general environmental financial blue democratic
        dark various entire close legal religious cold final main green nice huge popular traditional
        cultural narrow patient stubborn hollow distant bitter quiet fragile generous uneven""",
    "adverb": """also only even still never well often again always perhaps however almost later far
        already probably together today enough once yet sometimes quickly soon finally indeed nearly
        simply rather suddenly certainly clearly usually slowly recently early easily eventually exactly
        carefully directly badly quietly hardly openly""",
    "name": """Anna Thomas Maria Henry Clara Samuel Ruth Edward Nadia Oliver Irene Walter Sofia Martin
        Helen Victor Elena Arthur Judith Conrad Lisbon Vienna Norwich Dublin Prague Geneva Bergen Turin
        Leipzig Cardiff""",
    "link": "and but because while although when so before after if since until unless where",
    "preposition": "of in to for with on at from by about into through over between under against during without",
    "determiner": "the a this that his her their its each every another some no any our",
}  # fmt: skip

_PATTERNS = """
determiner noun verb determiner adjective noun preposition determiner noun
determiner adjective noun preposition determiner noun verb adverb
name verb determiner noun link determiner noun verb determiner noun preposition name
link determiner noun verb , determiner adjective noun verb determiner noun
adverb , determiner noun verb preposition determiner adjective noun link name verb adverb
determiner noun preposition noun link noun verb determiner noun adverb
name link name verb determiner adjective noun preposition determiner noun of determiner noun
it was determiner noun that verb determiner adjective noun , not determiner noun
there were adjective noun preposition determiner noun , link they adverb verb determiner noun
what name verb was adverb adjective : determiner noun preposition determiner adjective noun
in determiner noun of determiner noun , name verb determiner noun link verb determiner noun
determiner noun , which was adjective , verb determiner noun preposition determiner noun
they had adverb verb determiner noun , link determiner noun could not be verb
to determiner adjective noun it is adjective that determiner noun adverb verb determiner noun
"""


class _Drawer:
    """Draws words of one class; the cumulative weights are summed once."""

    def __init__(self, words: str) -> None:
        self.words = words.split()
        self.weights = list(accumulate(1 / (rank + 2) for rank in range(len(self.words))))

    def draw(self, rng: random.Random, count: int) -> Iterator[str]:
        return iter(rng.choices(self.words, cum_weights=self.weights, k=count))


_DRAWERS = {kind: _Drawer(words) for kind, words in _VOCABULARY.items()}
_SENTENCES = [line.split() for line in _PATTERNS.strip().splitlines()]


def english(seed: str, size: int) -> str:
    """Exactly ``size`` ASCII characters of English-like prose; the same seed gives the same text."""
    rng = random.Random(seed)
    drawn: dict[str, Iterator[str]] = {}
    sentences: list[str] = []
    length = 0
    while length < size:
        words: list[str] = []
        for kind in rng.choice(_SENTENCES):
            drawer = _DRAWERS.get(kind)
            if drawer is None:
                words.append(kind)
                continue
            word = next(drawn.get(kind, iter(())), None)
            if word is None:
                drawn[kind] = drawer.draw(rng, 40)
                word = next(drawn[kind])
            words.append(word)
        sentence = " ".join(words).replace(" ,", ",").replace(" :", ":")
        sentences.append(sentence[0].upper() + sentence[1:] + rng.choice((". ", ". ", ". ", ".\n")))
        length += len(sentences[-1])
    return "".join(sentences)[: size - 1] + "."


class Verdict(NamedTuple):
    """What the validator says: it passes the last draft only, so that every chain goes its full length."""

    passed: bool
    message: str

    def to_bytes(self) -> bytes:
        return json.dumps(self._asdict()).encode()


class Contents(NamedTuple):
    """All that a chain's parts will say, made beforehand."""

    documents: tuple[str, ...]
    drafts: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    critiques: tuple[tuple[str, ...], ...]


@cache
def documents(chain: int) -> tuple[str, ...]:
    return tuple(english(f"{chain}/document/{n}", DOCUMENT_BYTES) for n in range(DOCUMENTS))


@cache
def draft(chain: int, iteration: int) -> str:
    return english(f"{chain}/{iteration}/draft", DRAFT_BYTES)


@cache
def critiques(chain: int, iteration: int) -> tuple[str, ...]:
    return tuple(english(f"{chain}/{iteration}/{name}", CRITIQUE_BYTES) for name in CRITICS)


def verdict(iteration: int, iterations: int) -> Verdict:
    if iteration + 1 == iterations:
        return Verdict(passed=True, message="")
    return Verdict(passed=False, message=f"draft {iteration} does not yet name its sources")


@cache
def contents(chain: int, iterations: int) -> Contents:
    span = range(iterations)
    return Contents(
        documents(chain),
        tuple(draft(chain, i) for i in span),
        tuple(verdict(i, iterations) for i in span),
        tuple(critiques(chain, i) for i in span),
    )


def steps_of(iterations: int) -> int:
    """Paid steps of a chain: one retrieval, then four an iteration."""
    return 1 + STEPS_PER_ITERATION * iterations


def chain_steps(chain: int, iterations: int) -> Iterator[tuple[str, bytes]]:
    """The chain's durable steps in order: name and content, as plain bytes."""
    said = contents(chain, iterations)
    yield "retrieval", "\n".join(said.documents).encode()
    for i in range(iterations):
        yield "generation", said.drafts[i].encode()
        yield "validation", said.verdicts[i].to_bytes()
        for name, text in zip(CRITICS, said.critiques[i], strict=True):
            yield f"criticism {name}", text.encode()


class ChainParts:
    """The retriever, model, validator and critics of one chain: each answers at once and is counted.

    Each comes plain and, with an ``a`` before its name, as a coroutine function. A run takes a fresh object. ``calls`` must be ``steps_of(iterations)`` at the end; whoever runs
    the chain by rows (the floor) takes them from ``steps()`` instead, counted the same way.
    """

    def __init__(self, chain: int, iterations: int) -> None:
        self.chain = chain
        self.iterations = iterations
        self.prompt = f"Tell the story of chain {chain} in a page."
        self.calls = 0
        self._said = contents(chain, iterations)
        self._drafted = 0

    @property
    def last_draft(self) -> str:
        return self._said.drafts[-1]

    @property
    def drafts(self) -> tuple[str, ...]:
        return self._said.drafts

    def retrieve(self, _query: str = "") -> list[str]:
        self.calls += 1
        return list(self._said.documents)

    def generate(self, _prompt: str = "") -> str:
        self.calls += 1
        self._drafted += 1
        return self._said.drafts[self._drafted - 1]

    def validate(self, _text: str = "") -> Verdict:
        self.calls += 1
        return self._said.verdicts[self._drafted - 1]

    def critique(self, critic: int, _text: str = "") -> str:
        self.calls += 1
        return self._said.critiques[self._drafted - 1][critic]

    async def aretrieve(self, query: str = "") -> list[str]:
        return self.retrieve(query)

    async def agenerate(self, prompt: str = "") -> str:
        return self.generate(prompt)

    async def avalidate(self, text: str = "") -> Verdict:
        return self.validate(text)

    async def acritique(self, critic: int, text: str = "") -> str:
        return self.critique(critic, text)

    def steps(self) -> Iterator[tuple[str, bytes]]:
        for step in chain_steps(self.chain, self.iterations):
            self.calls += 1
            yield step
