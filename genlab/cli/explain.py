"""Explanations of errors of Hydra, OmegaConf and YAML, in one line that names the key, value and remedy.

The errors are recognised by their attributes, so that this module need not import those libraries.
"""

from __future__ import annotations

import contextlib
import decimal
import re
import warnings
from collections.abc import Iterator, Mapping

from genlab.config.schema import suggest
from genlab.errors import ConfigError, UserError


@contextlib.contextmanager
def explained(ready: Mapping[str, str]) -> Iterator[None]:
    """Turns an error that is raised while a configuration is composed into one line; see `explain`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(explain(error, ready)) from error


def explain(error: BaseException, ready: Mapping[str, str]) -> str:
    """Returns one line that explains why a configuration does not compose.

    Args:
        error: the exception that was raised while Hydra composed.
        ready: see `genlab.cli.overrides.for_hydra`; it maps Hydra's words back to the words as typed.
    """
    override = getattr(error, "override", None)
    if isinstance(override, str):
        return _unreadable(ready.get(override, override))
    if hasattr(error, "missing_cfg_file"):
        return _missing_config(error)
    if isinstance(error, decimal.InvalidOperation):
        return "range: its limits are no numbers; write range(1,5)"
    if isinstance(error, RecursionError):
        return "the configuration is nested too deeply; settings have few levels"
    return _composition(error, ready)


_KEY = re.compile(r"(\+\+?|~)?[A-Za-z_][\w\-]*([./][\w\-]+)*(@[\w.\-]+)?", re.ASCII)


def _unreadable(word: str) -> str:
    key, _, value = word.partition("=")
    hidden = [each for each in word if not each.isprintable() and not "\ud800" <= each <= "\udfff"]
    if hidden:  # other than bytes of a file's name that are not UTF-8, which quotes allow
        return f"{word}: has the character {hidden[0]!a}; leave it out"
    if not _KEY.fullmatch(key):
        return f"{word}: {key} is no key; keys are names with dots between them, e.g. trainer.steps=500"
    if any(value.count(opened) != value.count(closed) for opened, closed in ("[]", "{}", "()")):
        return f"{word}: a bracket is not closed, or was not opened"
    if value.count("'") % 2 or value.count('"') % 2:
        return f"{word}: a quote is not closed; close it"
    if any(mark in word for mark in "“”‘’„"):
        return f"{word}: has typographic quotes; type straight ones, or none"
    if re.fullmatch(r"\(.*\)|\[.*\]", value):
        items = [item.strip() for item in value[1:-1].split(",")]
        return f"{word}: not a list; write {key}=[{','.join(item for item in items if item)}]"
    if value != value.strip(",; "):
        return f"{word}: ends or starts with {value.strip()[-1]}; write {key}={value.strip(',; ')}"
    inner = value.replace("'", "")
    return f"{word}: the value cannot be parsed; put it in two pairs of quotes: '{key}=\"{inner}\"'"


def _missing_config(error: BaseException) -> str:
    missing = getattr(error, "missing_cfg_file", None) or "config"
    group, _, option = missing.lstrip("/").rpartition("/")
    if not group:
        return f"{missing}: no such configuration file; check --config-dir and --config-name"
    options = getattr(error, "options", None) or []
    named_in = re.match(r"In '([^']+)'", str(error))
    where = f" (named in {named_in[1]})" if named_in and "/" in named_in[1] else ""
    hint = suggest(option, options, f"{group}=") or "; see genlab list"
    return f"{group}={option}: no such {group}{where}{hint}"


_PATTERNS = (
    (
        r"Error resolving interpolation '(.*?)', pos",
        "{0}: a defaults list refers only to groups chosen before it",
    ),
    (r"nvalid defaults list in '(.*?)', (.*)", "{0}: its {1}"),
    (r"An item is already at '(.*?)'", "+{0}: the key already exists; leave out the +"),
    (r"not delete from config. '(.*?)' does not exist", "~{0}: cannot delete: no such key; see --cfg job"),
    (r"Could not delete '(.*?)'. No match", "~{0}: cannot delete: no such key; see --cfg job"),
    (r"not delete from config. The value of '(.*?)' is (.*) and not", "~{0}: its value is {1}; leave it out"),
    (r"Could not override '(.*?)'", "{0}: no such group or key here; see --help and genlab list"),
    (r"config group override, but config group '(.*?)'", "{0}: no such group; see genlab list"),
    (r"force-add of config groups is not supported: '(.*?)'", "{0}: choose a group without ++"),
    (r"Multiple values for (.*?)\.", "{0}: given twice; leave one out"),
    (
        r"override must be a string or a list. Got (\w+)",
        "choose a group by a name, not by a {0}; see genlab list",
    ),
)


def _composition(error: BaseException, ready: Mapping[str, str]) -> str:
    text = str(error)
    for pattern, line in _PATTERNS:
        if match := re.search(pattern, text):
            return line.format(*(ready.get(part, part.removeprefix("++")) for part in match.groups()))
    cause = error
    while not str(cause).strip() and cause.__cause__ is not None:
        cause = cause.__cause__
    if merging := re.match(r"Error merging override (.*)", text):
        reason = _first_line(error.__cause__ or error)
        return f"{ready.get(merging[1], merging[1])}: does not fit here ({reason}); see --cfg job"
    key = re.search(r"full_key: (\S+)", str(cause))
    return f"{key[1] if key else 'configuration'}: {_first_line(cause)}; see --cfg job and --info defaults"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
