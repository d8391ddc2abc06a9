"""Every command of docs/training.md is run, as written but for a budget of a few steps."""

from __future__ import annotations

import re
import shlex

import pytest
from test_readme import CHECKOUT, shortened

from genlab import cli, latent_space

PAGE = (CHECKOUT / "docs" / "training.md").read_text()


def test_its_commands_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(latent_space, "ENCODED_IMAGES", 200)
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        verb, *words = shlex.split(command)
        assert verb == "genlab"
        assert cli.main(shortened(words)) == 0, f"{command}\n{capsys.readouterr().err[-2000:]}"
