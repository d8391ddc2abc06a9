"""genlab: a laboratory bench for generative models of images."""

__version__ = "0.1.0"
