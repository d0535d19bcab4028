"""Methods beside each other, with what the numbers are worth."""
