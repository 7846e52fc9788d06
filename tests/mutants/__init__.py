"""What the tests notice: single changes of the code that decides answers."""
