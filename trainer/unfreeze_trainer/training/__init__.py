"""A training on one rank: the loop, and the parts of a run that it calls. docs/architecture.md has a list of them."""
