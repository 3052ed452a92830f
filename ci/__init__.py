"""Commands of the project's own: set-up, tests, checks and the embedded control plane."""
