"""All of a plan or none of it: what is written, in which order, and how it is confirmed and taken back."""
