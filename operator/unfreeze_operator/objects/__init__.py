"""The objects of a cluster as the operator sees them: names, small views, and what to do with them. Pure."""
