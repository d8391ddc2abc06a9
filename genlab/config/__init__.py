"""The configuration: its dataclasses, and `from_plain`, which checks every configuration."""
