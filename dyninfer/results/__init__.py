"""What comes out: detections, and how they are chosen and compared."""
