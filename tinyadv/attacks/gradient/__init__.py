"""Attacks that maximise the loss by gradients, within a budget."""
