"""The words that every layer shares: requests, catalogue, events and errors. Standard library and pydantic only."""
