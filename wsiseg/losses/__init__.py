"""Losses: from logits and labels to scalars."""
