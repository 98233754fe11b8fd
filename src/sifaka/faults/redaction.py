"""Secrets out of a text before anybody stores, logs or shows it (floor 1).

A key of a known shape, a credential in a web address and the value of a name that promises a secret
become ``[secret]``. Addresses of people stay: they are no secret, and error texts name whom to write
to. Every pattern starts at most once in a run of word characters and has bounded
parts, so that the time is linear in the text, whatever the text is.
"""

from __future__ import annotations

import re
from functools import cache

__all__ = ["redact"]

_MASK = "[secret]"
_START = r"(?<![\w-])"

# What providers' keys look like, known by how they begin; the first also in the half-masked form
# in which error messages quote them.
_SHAPES = (
    r"(?:sk|pk|rk)[-_][\w*-]{8,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek, Stripe
    r"AIza[\w-]{20,}",  # Google
    r"ya29\.[\w.-]{20,}",  # Google OAuth
    r"gsk_\w{16,}",  # Groq
    r"(?:AKIA|ASIA)[A-Z0-9]{12,}",  # AWS
    r"ABSK[\w+/=]{20,}",  # Bedrock
    r"hf_\w{16,}",  # Hugging Face
    r"xai-[\w-]{16,}",  # xAI
    r"(?:gh[pousr]_|github_pat_)\w{16,}",  # GitHub
    r"glpat-[\w-]{16,}",  # GitLab
    r"(?:r8_|fw_|tgp_v1_)[\w-]{16,}",  # Replicate, Fireworks, Together
    r"(?:nvapi|pplx|csk)-[\w-]{16,}",  # NVIDIA, Perplexity, Cerebras
    r"dapi[0-9a-f]{32}",  # Databricks
    r"AQVN[\w-]{30,}",  # Yandex
    r"[0-9a-f]{32}\.[A-Za-z0-9]{16}(?!\w)",  # Zhipu: an id and its secret
    r"(?:pa|tvly)-[A-Za-z0-9]{20,}",  # Voyage, Tavily
    r"(?:jina|lsv2|pcsk|esecret|flp|vck|npm|whsec)_[\w-]{16,}",  # Jina, LangSmith, Pinecone, Anyscale
    r"(?:GOCSPX-|SG\.)[\w.-]{20,}",  # Google's OAuth clients, SendGrid
    r"xox[a-z]-[\w-]{10,}",  # Slack
    r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",  # a JSON web token
)

# Names whose value is a secret, whatever it looks like. A bare number after "token" is a count.
_NAMES = (
    r"(?:api[ _-]?keys?(?: provided)?|(?:subscription|access|account|private)[_-]?key"
    r"|secret(?:[_-]?(?:access[_-]?)?key)?|passw(?:or)?d|passphrase|pwd|credentials?"
    r"|authorization|cookie|token(?!\\?[\"']?\s{0,4}[:=]\s{0,4}\d{1,7}\b))"
)
_VALUES = (
    r"(?:(\\[\"'])[^\"'\\\n]{1,4096}"  # quoted inside a quoted text
    r"|(\")(?:[^\"\\\n]|\\.){1,4096}|(')(?:[^'\\\n]|\\.){1,4096}"
    r"|(?!(?:none|null|true|false)\b|\[)(?:(?:bearer|basic|token|digest)\s)?[^\s\"'&<>\\]{1,4096})"
)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    pem = r"-----(?:BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY-----"
    bearer = r"(?:[\w.~+/=-]{16,4096}|(?=[\w.~+/=-]{0,15}\d)[\w.~+/=-]{6,15})"
    return (
        (re.compile(rf"{pem}.*?(?:{pem}|\Z)", re.DOTALL), _MASK),
        # user:password@ in an address (the password may hold / and @, a port is none), or token@
        (
            re.compile(
                r"(?<=://)(?:[^\s/?#@:\"'<>]{0,200}:(?!\d{1,5}/)[^\s\"'<>]{1,200}|[^\s/?#\"'<>]{1,300})@"
            ),
            f"{_MASK}@",
        ),
        # what signs an address: key=, sig=, X-Amz-Signature=, X-Goog-Credential=, access_token=
        (
            re.compile(
                r"(?i)([?&](?:[\w-]{1,40}[_-])?(?:key|sig|signature|credential|token|secret|password)=)"
                r"[^&\s\"'<>]{1,4096}"
            ),
            rf"\1{_MASK}",
        ),
        # a quoted value right after what it is: Unknown api key 'abc'
        (
            re.compile(r"(?i)((?:api[ _-]?key|password|secret|credential)\s([\"']))[^\"'\s]{8,4096}(?=\2)"),
            rf"\1{_MASK}",
        ),
        (re.compile(_START + "(?:" + "|".join(_SHAPES) + ")"), _MASK),
        (re.compile(rf"(?i){_START}((?:bearer|basic)\s{{1,4}}){bearer}"), rf"\1{_MASK}"),
        (
            re.compile(rf"(?i){_START}([\w-]{{0,80}}?{_NAMES}\\?[\"']?\s{{0,4}}[:=]\s{{0,4}}){_VALUES}"),
            rf"\1\2\3\4{_MASK}",
        ),
    )


def redact(text: str) -> str:
    """The text with ``[secret]`` in place of each key, token and password. Linear in its length."""
    for pattern, replacement in _patterns():
        text = pattern.sub(replacement, text)
    return text
