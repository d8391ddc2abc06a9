"""The training loop and its parts: updates, averages, schedules, state."""
