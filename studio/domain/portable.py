"""Errors that travel between processes."""

import pickle


def portable(error: Exception) -> Exception:
    """`error`, or, where it cannot travel between processes, one that says the same."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        return copy if str(copy) == str(error) else RuntimeError(f"{type(error).__name__}: {error}")
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
