"""A hook of MkDocs: writes the help pages of all commands into command-line.md when the site is built."""

from __future__ import annotations

from typing import Any

from genlab.cli import help
from genlab.cli.composing import configs_folder
from genlab.cli.verbs import VERBS

_MARKER = "<!-- the help pages of all commands -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns the page with the help pages in the marker's place."""
    if page.file.src_uri != "command-line.md":
        return markdown
    if _MARKER not in markdown:
        raise ValueError(f"{page.file.src_uri}: the line {_MARKER} is missing")
    return markdown.replace(_MARKER, help_pages())


def help_pages() -> str:
    """Returns a section for each command, in Markdown: its summary and its help page."""
    folders = [configs_folder()]
    sections = []
    for verb, row in VERBS.items():
        summary = f"{row.summary[0].upper()}{row.summary[1:]}."
        sections.append(f"## genlab {verb}\n\n{summary}\n\n```text\n{help.page(verb, folders)}\n```")
    return "\n\n".join(sections)
