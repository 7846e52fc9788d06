"""Faster R-CNN with a feature pyramid, of any depth and widths: a bundle of two stages."""
