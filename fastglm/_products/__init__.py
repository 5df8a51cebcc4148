"""X of a batch of receivers as verbs."""
