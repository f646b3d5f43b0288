"""Empty until the next commit."""
