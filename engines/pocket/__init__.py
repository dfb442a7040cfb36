"""Pocket models: miniature diffusers pipelines trained on a world that this package draws and checks."""
