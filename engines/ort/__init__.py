"""ONNX Runtime: CPU, CUDA and TensorRT execution providers."""
