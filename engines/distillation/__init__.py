"""Teaches a checkpoint to draw in few steps: distils its many guided steps into an adapter."""
