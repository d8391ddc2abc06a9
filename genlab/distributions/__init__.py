"""Distributions of latents and of pixels."""
