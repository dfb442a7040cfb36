"""OpenAI's Images API, below `/v1`."""
