"""Files to samples: tables and image folders, labels, splits, and the order in which samples are trained on."""
