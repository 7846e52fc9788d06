"""What is measured: accuracy, latency, and the scenes and baselines they are measured on."""
