"""Attacks that change one small part of an image, as much as they like."""
