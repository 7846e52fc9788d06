"""Whether images are still like those of the calibration: drift, audits, alarms."""
