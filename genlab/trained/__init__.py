"""Trained models: loading, sampling, encoding and evaluation."""
