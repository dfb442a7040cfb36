"""Our own JSON API, below `/api/v1`."""
