"""All at once for a long time: what an application does to a detector, and what it does not plan.

``python -m tests.soak --seconds 600`` prints what was lost, what was wrong, and what grows.
"""
