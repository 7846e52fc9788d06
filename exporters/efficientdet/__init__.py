"""EfficientDet: D0 to D7x and Lite, as trained by TensorFlow or by PyTorch, as static bundles."""
