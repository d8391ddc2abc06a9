"""What the README and the pages of docs/ hold that can be run: commands, Python, files that they show.

A block or a table is left out if the line before it is `<!-- not run: reason -->`. A block with
`title="PATH"` is a file that the commands of its page find. A command that names a folder finds there what
the command with that `run_dir` leaves: the last one before it on its page, or else the first of all.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from helpers.checkout import CHECKOUT

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<language>\w*)(?P<options>[^\n`]*)\n(?P<body>.*?)^[ ]*```", re.M | re.S
)
NOT_RUN = re.compile(r"<!-- not run: \S.*-->\s*$")
MADE = re.compile(r"""run_dir\s*=\s*(?P<quote>["']?)(?P<path>[\w./-]+)(?P=quote)""")


@dataclass(frozen=True)
class Snippet:
    """One command, or one block of Python, and where it stands."""

    page: str
    line: int
    language: str
    text: str
    files: tuple[tuple[str, str], ...] = ()
    """The files that its page shows: paths and contents."""

    @property
    def id(self) -> str:
        shown = self.text if self.language == "bash" else f"python of line {self.line}"
        return f"{self.page}: {shown}"

    @property
    def made(self) -> list[str]:
        """The folders that it leaves."""
        return [match["path"] for match in MADE.finditer(self.text)]


def snippets(text: str, page: str) -> list[Snippet]:
    """Returns what is run of a page: commands of blocks and of tables, and Python, in order."""
    files, found, python = [], [], []
    for block in FENCE.finditer(text):
        line = text[: block.start()].count("\n") + 1
        body = textwrap.dedent(block["body"])
        if title := re.search(r'title="([^"]+)"', block["options"]):
            files.append((title[1], body))
        if NOT_RUN.search(text[: block.start()]):
            continue
        if block["language"] == "bash":
            found += [(line + 1 + k, "bash", command) for k, command in commands(body)]
        elif block["language"] == "python":
            found.append((line + 1, "python", with_names(body, python)))
            python.append(body)
    first: dict[tuple[str, str], int] = {}  # what stands on a page twice is run once
    for line, kind, code in sorted(found + in_tables(text), key=lambda part: part[0]):
        first.setdefault((kind, code), line)
    return [Snippet(page, line, kind, code, tuple(files)) for (kind, code), line in first.items()]


def commands(block: str) -> list[tuple[int, str]]:
    """Returns the commands of a block of bash without remarks, each with its line's number from 0."""
    found, number = [], 0
    for line in re.split(r"(?<!\\)\n", block):
        command = re.sub(r"(^|\s)#.*", "", line.replace("\\\n", " "))
        found += [(number, " ".join(part.split())) for part in command.split("&&") if part.strip()]
        number += line.count("\n") + 1
    return found


def in_tables(text: str) -> list[tuple[int, str, str]]:
    """Returns the commands in tables that are whole.

    A word in capitals stands for something else, and a verb alone is its name.
    """
    found, skipped = [], False
    lines = text.splitlines()
    for k, line in enumerate(lines):
        if not line.startswith("|"):
            continue
        if k == 0 or not lines[k - 1].startswith("|"):
            skipped = k > 0 and NOT_RUN.search(lines[k - 1]) is not None
        for command in re.findall(r"`(genlab [^`]*)`", line):
            whole = command == "genlab train" or len(command.split()) > 2
            if whole and not skipped and not re.search(r"\b[A-Z]{2,}\b|\.\.\.", command):
                found.append((k + 1, "bash", command))
    return found


def with_names(code: str, earlier: list[str]) -> str:
    """Returns Python with those of the blocks before it that define what it uses and does not define."""
    for part in reversed(earlier):
        if (used(code) - defined(code)) & defined(part):
            code = f"{part}\n{code}"
    return code


def used(code: str) -> set[str]:
    """Returns the names that code reads."""
    return {node.id for node in nodes(code) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def defined(code: str) -> set[str]:
    """Returns the names that code binds, in whatever scope."""
    found: set[str] = set()
    for node in nodes(code):
        match node:
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case ast.FunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.alias():
                found.add((node.asname or node.name).split(".")[0])
            case ast.arg():
                found.add(node.arg)
    return found


def nodes(code: str) -> list[ast.AST]:
    """Returns the nodes of code; none of code that is not Python, which fails when it is run."""
    try:
        return list(ast.walk(ast.parse(code)))
    except SyntaxError:
        return []
