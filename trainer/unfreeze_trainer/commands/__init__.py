"""`unfreeze run` and `unfreeze phases`: one machine in place of a cluster."""
