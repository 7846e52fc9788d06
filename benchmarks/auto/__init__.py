"""Which backend and precision is fastest for each stage of a bundle, on this machine's processor.

``stages`` measures the candidates of every stage in turns, ``mixes`` puts the fastest together
within a gate on accuracy, and measures the whole.
"""
