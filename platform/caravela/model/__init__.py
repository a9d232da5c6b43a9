"""The decoder and its settings."""
