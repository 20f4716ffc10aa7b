"""How the API server behaves, in Python: manifests are judged on a laptop as they would be in a cluster."""
