"""DRNet: a predictor chooses the resolution at which a classifier looks at an image."""
