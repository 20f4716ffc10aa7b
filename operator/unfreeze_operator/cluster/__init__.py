"""Talks to the API server and to pods: watches, caches, queue, calls."""

from unfreeze_operator.cluster.narrow import narrow

narrow()  # before anything imports kopf, or the package itself
