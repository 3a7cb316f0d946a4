"""Placeholder, being built."""
