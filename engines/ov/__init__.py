"""OpenVINO: stages compiled for a processor, beside ONNX Runtime's and in the same memory."""
