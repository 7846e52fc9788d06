"""Detection backbones without training: what a structure costs, how much it can say, a search."""
