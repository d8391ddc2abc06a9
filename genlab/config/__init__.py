"""The configuration: its dataclasses, and the one door through which it passes."""
