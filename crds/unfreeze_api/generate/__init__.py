"""What is generated from the models: the CRD, its policy and docs/api.md."""
