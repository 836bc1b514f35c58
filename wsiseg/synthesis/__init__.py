"""New images of nuclei, and their labels, out of single annotated patches."""
