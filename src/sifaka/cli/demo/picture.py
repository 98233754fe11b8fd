"""The last screen as an SVG picture that needs nothing from anywhere: no font, no script (floor 9)."""

from __future__ import annotations

from rich.console import RenderableType

from sifaka.cli.screen import paper

__all__ = ["draw"]

# The names in braces are rich's. The fonts are those that systems have; the text is fitted to its cells.
_SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{
  font-family: "DejaVu Sans", Helvetica, Arial, sans-serif;
  font-size: 18px;
  font-weight: bold;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def draw(page: RenderableType, path: str, title: str = "sifaka demo") -> None:
    """Write ``page`` to the file ``path``."""
    sheet = paper()
    sheet.print(page)
    sheet.print()  # the frame cuts what hangs below the last line
    picture = sheet.export_svg(title=title, code_format=_SVG, unique_id="sifaka")
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)
