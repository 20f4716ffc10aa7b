"""Modalities: how inputs become tensors. They know no objective and no library, but for what these tell them."""
