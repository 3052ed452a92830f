"""The journal of an apply: what it is going to do and what it found, so that any later run can take it back."""
