"""Attacks that climb the loss within a budget."""
