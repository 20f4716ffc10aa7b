"""Talks to the API server and to pods: watches, caches, queue, calls."""
