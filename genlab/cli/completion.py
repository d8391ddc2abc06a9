"""Shell completion: the scripts that a shell evaluates, and the completions that they ask for.

The scripts call `genlab -sc query=SHELL` with the line in COMP_LINE, as Hydra's own scripts do. The keys of
settings are those of the configuration that the preceding words compose.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genlab import plugins
from genlab.cli import help, words
from genlab.cli.composing import compose
from genlab.cli.verbs import VERBS
from genlab.config.schema import show, suggest
from genlab.errors import ConfigError, UserError

_BASH = r"""_genlab_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" word before="" IFS=$'\n'
    word="${line##* }"
    # Where bash breaks words at "=", it wants only what comes after it.
    if [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]]; then before="${word%=*}="; fi
    COMPREPLY=($(COMP_LINE="$line" COMP_POINT="${#line}" genlab -sc query=bash 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    if [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" != *[=./] ]]; then compopt +o nospace; fi
}
complete -o nospace -o default -F _genlab_complete genlab"""

_ZSH = r"""_genlab_complete() {
    local -a found
    local line="${(j: :)words[1,CURRENT]}"
    found=("${(@f)$(COMP_LINE="$line" COMP_POINT="${#line}" genlab -sc query=zsh 2>/dev/null)}")
    compadd -Q -S '' -- $found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _genlab_complete genlab"""

_FISH = r"""function __genlab_complete
    set -lx COMP_LINE (commandline -cp)
    set -lx COMP_POINT (string length -- "$COMP_LINE")
    genlab -sc query=fish 2>/dev/null
end
complete -c genlab -f -a '(__genlab_complete)'"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str | None) -> str:
    """Returns the completion script that a shell must evaluate.

    Raises:
        ConfigError: the shell is not supported.
    """
    if shell is None:
        raise ConfigError(f"completion: missing the name of a shell; add one of: {', '.join(_SCRIPTS)}")
    if shell not in _SCRIPTS:
        raise ConfigError(f"{shell}: no completion for this shell{suggest(shell, _SCRIPTS)}")
    return _SCRIPTS[shell]


def answer(shell: str, shipped: Path) -> None:
    """Prints the words that fit at the cursor, one per line; prints nothing if the line cannot be parsed."""
    if shell not in _SCRIPTS:
        raise ConfigError(f"query={shell}: no completion for this shell{suggest(shell, _SCRIPTS)}")
    line = os.environ.get("COMP_LINE", "")
    with contextlib.suppress(ValueError):
        line = line[: int(os.environ.get("COMP_POINT", ""))]
    with contextlib.suppress(UserError, OSError):
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        found = candidates(line, shipped)
        print("\n".join(each for each in found if each.encode(encoding, "ignore").decode(encoding) == each))


def candidates(line: str, shipped: Path) -> list[str]:
    """Returns the words that may complete the last word of a line that starts with the program's name."""
    typed = line.split()
    last = typed.pop() if typed and not line[-1].isspace() else ""
    program = next((k for k, word in enumerate(typed) if os.path.basename(word) == "genlab"), 0)
    before = typed[program + 1 :]
    previous = before[-1] if before else ""
    if previous in ("-c", "--cfg"):
        return _starting(last, ("job",))
    if previous == "--module":
        return []
    if previous in ("-cd", "--config-dir"):
        return _files("", last, folders_only=True)
    command = words.sort(before)
    if last.startswith("-"):
        return _starting(last, words.FLAGS)
    if command.verb is None:
        return _starting(last, VERBS)
    if command.verb == "completion":
        return _starting(last, _SCRIPTS)
    if command.verb == "list":
        return _starting(last, help.GROUPS)
    if command.verb not in VERBS:
        return []
    key, equals, value = last.partition("=")
    with contextlib.redirect_stdout(io.StringIO()):
        plugins.import_modules(command.modules)
    for each in VERBS[command.verb].settings:
        if equals and each.key == key and (each.path or each.choices or each.words):
            offered = [f"{key}={show(word)}" for word in (*each.choices, *each.words)]
            return [*_starting(last, offered), *(_files(f"{key}=", value) if each.path else ())]
    if equals and key in words.path_keys(command.verb):
        return _files(f"{key}=", value)
    return _overrides(command, last, shipped)


def _overrides(command: words.Command, last: str, shipped: Path) -> list[str]:
    verb = str(command.verb)
    folders = words.config_folders(command, shipped)
    key, equals, value = last.partition("=")
    if equals:
        if key not in words.bare_keys(verb, folders) or key not in words.groups(folders):
            return []
        before = value.rpartition(",")[0]  # values of a sweep
        start = f"{key}={before}," if before else f"{key}="
        return _starting(last, [start + name for name in words.options(folders, key)])
    if verb == "resume" and command.value("run") is None:
        return _starting(last, ["run="])
    bare = [f"{name}=" for name in words.bare_keys(verb, folders)]
    if "." not in last:
        groups = [f"{name}." for name in words.groups(folders)] if verb in ("train", "resume") else []
        return _starting(last, [*bare, *groups])
    command.flags.pop("--cfg", None)
    command.flags.pop("--info", None)
    jobs = compose(command, folders)
    part: Any = jobs[0].plain
    *inside, _ = last.split(".")
    for name in inside:
        part = part.get(name) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping):
        return []
    prefix = "".join(f"{name}." for name in inside)
    ends = {name: "." if isinstance(inner, Mapping) and inner else "=" for name, inner in part.items()}
    return _starting(last, [f"{prefix}{name}{end}" for name, end in ends.items() if name != "name"])


def _starting(last: str, choices: Any) -> list[str]:
    return [choice for choice in choices if choice.startswith(last) and choice.isprintable()]


def _files(prefix: str, start: str, *, folders_only: bool = False) -> list[str]:
    found = sorted(glob.glob(glob.escape(start) + "*"))
    kept = [path + "/" * os.path.isdir(path) for path in found if os.path.isdir(path) or not folders_only]
    return [prefix + path for path in kept if path.isprintable()]
