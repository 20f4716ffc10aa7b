"""What trains when: blocks of a model, strategies compiled to phases, and the freezer that applies them."""
