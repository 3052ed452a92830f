"""The shared words: YAML, documents, kinds, identity, ownership, and what a policy does."""
