"""Training: from labelled stores and a learner to checkpoints."""
