"""A machine with GPUs that are not there: it computes real results and forgives nothing.

``machine`` keeps memory, streams, events and graphs; ``runtime``, ``driver`` and ``library`` look
like cuda-python, PyCUDA and TensorRT on top of it. An engine file of the stand-in holds an ONNX
model, which ONNX Runtime computes when its turn comes on a stream.
"""
