"""What the documentation says works: its code runs, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
)
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.slow
@pytest.mark.model
def test_the_readme_runs_in_order_on_the_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXTS[ROOT / "README.md"], flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["result"].text  # type: ignore[attr-defined]
    assert (tmp_path / "runs.db").exists()


def test_the_page_about_stores_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXTS[ROOT / "docs/stores.md"], flags=re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        exec(compile(block, "stores.md", "exec"), names)
    assert names["moved"].runs  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_what_a_page_shows_runs_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", TEXTS[page], flags=re.DOTALL):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", TEXTS[page]):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_decision_is_listed() -> None:
    listed = TEXTS[ROOT / "docs/adr/README.md"]
    for page in (ROOT / "docs/adr").glob("0*.md"):
        assert f"({page.name})" in listed


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page, text in TEXTS.items():
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE))
        assert named <= targets, f"{page.name} names {named - targets}"


def test_the_extras_in_the_readme_are_the_ones_there_are() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    section = project.split("[project.optional-dependencies]")[1].split("[")[0:99]
    extras = re.findall(r"^([a-z]+) = ", "[".join(section).split("[project.scripts]")[0], flags=re.MULTILINE)
    line = re.search(r"Extras: ([^.]+)\.", TEXTS[ROOT / "README.md"])
    assert line is not None
    assert re.findall(r"`([a-z]+)`", line[1]) == extras
