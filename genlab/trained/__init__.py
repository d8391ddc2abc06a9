"""Checkpoints put to use."""
