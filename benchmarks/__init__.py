"""How fast bundles are: latency against baselines, the machine it was taken on, and the report."""
