"""Keys that have been renamed, so that old runs can be resumed and old commands get a helpful error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"model.opponent_hidden": "model.discriminator_hidden"}
"""Old key to the present one. A key is never reused with another meaning."""


def with_present_names(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's configuration, of any version, with the present names of its keys.

    Args:
        plain: groups of settings, e.g. {"model": {"name": "gan", ...}, ...}.
    """
    found = dict(plain)
    for old, new in RENAMED.items():
        group, _, key = old.partition(".")
        settings = found.get(group)
        if isinstance(settings, Mapping) and key in settings:
            found[group] = {
                new.partition(".")[2] if name == key else name: value for name, value in settings.items()
            }
    return found
