"""Coverage-guided fuzzing of every parser that strangers' bytes reach; see README.md here."""
