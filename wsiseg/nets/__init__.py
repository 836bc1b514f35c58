"""Networks that give a dense map for an image."""
