"""What tells people and their tools how the programs are doing: metrics, health, Kubernetes Events."""
