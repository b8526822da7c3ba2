"""Attacks that need no gradient."""
