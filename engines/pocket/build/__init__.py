"""Trains the pocket models from nothing: `python -m engines.pocket.build --help`."""
