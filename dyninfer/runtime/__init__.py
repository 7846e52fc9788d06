"""Running a bundle: plan, executor, session, detector."""
