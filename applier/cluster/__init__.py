"""The Kubernetes API: the connection, and the adapters that read and write policies and ConfigMaps through it."""
