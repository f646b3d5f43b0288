"""The commands of `voiced`, one a file; each is imported only when it is asked for."""
