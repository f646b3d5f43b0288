"""Independent SIP peers against the whole daemon."""
