"""From label images on disk to scores: which belong together, and what they say."""
