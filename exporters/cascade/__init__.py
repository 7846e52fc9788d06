"""Two or more unrelated ONNX detectors, chained into one cascade bundle."""
