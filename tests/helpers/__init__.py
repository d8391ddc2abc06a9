"""What tests share: commands, runs, pictures, and models small enough to be checked exactly."""

import pytest

pytest.register_assert_rewrite("helpers.command_line", "helpers.pictures", "helpers.runs")
