"""Loads models and makes images. Knows nothing of the UI."""

from engines.torchvision_names import name_before_import

name_before_import()
