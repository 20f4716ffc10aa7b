"""Which base suits the data: scores of frozen features, and the order that follows from them."""
