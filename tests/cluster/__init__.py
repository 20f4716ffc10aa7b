"""A real Kubernetes control plane and nodes that run pods as local processes, for tests and for trying out."""
