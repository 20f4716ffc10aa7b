"""Libraries whose models are trained: how a model is loaded, called and written, and how others load what is written."""
