"""The block cache: what frozen blocks make of a sample is computed once, and read from then on."""
