"""What providers and models are known, and what is near a name that is not (floor 2).

The lists are pydantic-ai's and genai-prices': no model name is written down here.
"""

from __future__ import annotations

import re
from functools import cache

from sifaka.errors import MissingExtraError, UnknownModelError

__all__ = [
    "extra_command",
    "missing_library",
    "nearest_model",
    "no_provider",
    "served_today",
    "unknown_provider",
    "version_of",
]

_EXTRAS = ("anthropic", "bedrock", "google", "groq", "mistral", "openai")
"""Our own extras; each is called like its provider. Only these are known without pydantic-ai."""

_SPELT_ALIKE = 0.9  # as in "claude-sonet-5"; "claude-3-sonnet" and "claude-sonnet-5" have 0.87
_NO_WORDS = frozenset({"latest", "preview", "exp", "beta"})


def extra_command(extra: str) -> str:
    """The command that installs what a provider needs, where ``extra`` is pydantic-ai's name."""
    project = "sifaka" if extra in _EXTRAS else "pydantic-ai-slim"
    return f"pip install '{project}[{extra}]'"


def missing_library(spec: str, provider: str, error: ImportError) -> MissingExtraError:
    """The error for a provider whose library is not installed."""
    named = re.search(r"pydantic-ai-slim\[([\w-]+)\]", str(error))
    extra = named.group(1) if named else provider
    return MissingExtraError(f"{spec!r} needs: {extra_command(extra)}", spec)


def without_pydantic_ai(spec: str, provider: str) -> MissingExtraError | UnknownModelError:
    """The error where the library that knows the providers is not installed itself."""
    near = _near(provider, _EXTRAS)
    if near and provider not in _EXTRAS:
        return unknown_provider(spec, provider, "")
    extra = provider if provider in _EXTRAS else "openai"  # whose protocol most providers speak
    return MissingExtraError(f"{spec!r} needs: {extra_command(extra)}", spec)


def no_provider(spec: str) -> UnknownModelError:
    """The error for a spec without a colon, such as a bare model name."""
    if spec in _provider_names():
        say = f"add a model to it: '{spec}:model-name'"
    elif homes := [known for known in _known_models() if known.partition(":")[2] == spec]:
        # A plain provider comes before those that resell its models.
        say = f"write {min(homes, key=_plainness)!r}"
    elif near := _near(spec, [known.partition(":")[2] for known in _known_models()]):
        home = min((m for m in _known_models() if m.endswith(f":{near}")), key=_plainness)
        say = f"did you mean {home!r}?"
    else:
        say = "write 'provider:model', 'local:smollm2' or 'local:/path/to/file.gguf'"
    return UnknownModelError(f"the model {spec!r} names no provider; {say}", spec)


def unknown_provider(spec: str, provider: str, name: str) -> UnknownModelError:
    """The error for a provider nobody knows."""
    near = _near(provider, _provider_names())
    homes = [known for known in _known_models() if name and known.endswith(f":{name}")]
    if near:
        say = f"did you mean '{near}:{name}'?"
    elif homes:
        say = f"did you mean {min(homes, key=_plainness)!r}?"
    else:
        say = f"known are {', '.join(sorted(_provider_names()))}"
    return UnknownModelError(f"there is no provider {provider!r} ({spec!r}); {say}", spec)


def served_today(provider: str, name: str) -> bool:
    """Whether the provider is known to serve the model, or nothing is known of its models."""
    names = _models_of(provider)
    return not names or (name in names and not _deprecated(provider, name))


def nearest_model(provider: str, name: str) -> str | None:
    """The model of today that is nearest to a retired or misspelt one; None if none is near."""
    import difflib

    names = [one for one in _models_of(provider) if one != name and not _deprecated(provider, one)]
    alike = difflib.get_close_matches(name.lower(), names, n=1, cutoff=_SPELT_ALIKE)
    if alike:
        return f"{provider}:{alike[0]}"
    words, _ = _family(name)
    kin = [(one, *_family(one)) for one in names]
    kin = [row for row in kin if row[1] & words]
    if not kin:
        return None
    # Of the most words in common, the newest, and of one model's several names the shortest.
    best = max(kin, key=lambda row: (_overlap(row[1], words), row[2], -len(row[0])))
    return f"{provider}:{best[0]}"


def version_of(name: str) -> tuple[int, ...]:
    """The version in a model's name: ``(4, 5)`` of ``claude-sonnet-4-5-20250929``; empty if it has none."""
    return _family(name)[1]


def _overlap(some: frozenset[str], others: frozenset[str]) -> float:
    return len(some & others) / len(some | others)


def _family(name: str) -> tuple[frozenset[str], tuple[int, ...]]:
    """A model name's words ("claude", "sonnet") and its version; dates are neither."""
    undated = re.sub(r"\d{4}-\d\d-\d\d|\d{8}", "", name.lower())
    tokens = re.split(r"[-_.:/@ ]", undated)
    words = frozenset(t for t in tokens if t and not t[0].isdigit()) - _NO_WORDS
    version = tuple(int(t) for t in tokens if t.isdigit() and int(t) < 1000)
    return words, version


def _near(name: str, names: tuple[str, ...] | list[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name.lower(), names, n=1)), None)


def _plainness(known: str) -> tuple[bool, int, str]:
    provider = known.partition(":")[0]
    return provider not in _EXTRAS, len(provider), known


@cache
def _known_models() -> tuple[str, ...]:
    """Every ``provider:model`` pydantic-ai lists; none where it is not installed."""
    try:
        from pydantic_ai.models import known_model_names
    except ImportError:
        return ()
    names = (str(name) for name in known_model_names())
    return tuple(name for name in names if ":" in name and not name.startswith("gateway/"))


@cache
def _models_of(provider: str) -> tuple[str, ...]:
    return tuple(m.partition(":")[2] for m in _known_models() if m.startswith(f"{provider}:"))


@cache
def _provider_names() -> tuple[str, ...]:
    try:
        import pydantic_ai.providers as package
    except ImportError:
        return (*_EXTRAS, "local")
    import pkgutil

    modules = {module.name.replace("_", "-") for module in pkgutil.iter_modules(package.__path__)}
    listed = {known.partition(":")[0] for known in _known_models()}
    names = {"local", *listed, *modules}
    return tuple(sorted(name for name in names if not name.startswith("-")))


def _deprecated(provider: str, name: str) -> bool:
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, model = get_snapshot().find_provider_model(
            name, provider=None, provider_id=provider, provider_api_url=None
        )
    except LookupError:
        return False
    return bool(model.deprecated)
