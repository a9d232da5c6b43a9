"""Caravela: from web crawl to Portuguese language model, on Ray."""

__version__ = "0.1.0"
