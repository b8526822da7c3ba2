"""Attacks that search for the nearest misclassified point."""
