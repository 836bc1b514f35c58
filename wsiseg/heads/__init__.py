"""Dense maps that stand for single objects: targets, losses and decoding."""
