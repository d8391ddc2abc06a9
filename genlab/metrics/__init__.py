"""Metrics that compare samples with data."""
