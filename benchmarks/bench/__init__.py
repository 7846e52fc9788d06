"""What ``dyninfer bench`` measures, and the record it leaves."""
