"""ZenDet (MAE-DET): a structure text and weights become a backbone's bundle or a detector's."""
