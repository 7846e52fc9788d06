"""What a detector is worth: data sets, average precision, traces, curves, calibrating."""
