"""Who decides: policies, goals, control, certificates, thresholds."""
