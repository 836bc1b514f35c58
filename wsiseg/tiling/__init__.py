"""Cutting slides into patches, and reading the patches back."""
