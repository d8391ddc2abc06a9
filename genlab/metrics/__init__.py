"""Comparing samples with data."""
