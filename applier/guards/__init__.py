"""What keeps a run from being made: each refusal, and what has to be found out before it can be told."""
