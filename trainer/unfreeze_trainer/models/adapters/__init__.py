"""Adapters: added to a model, folded into it, written alone."""
