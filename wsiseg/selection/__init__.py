"""Choosing which patches a person should annotate."""
