"""Slides: whatever can be opened, described and read."""
