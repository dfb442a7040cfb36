"""Captions for many pictures: made, kept in shards, merged and verified."""
