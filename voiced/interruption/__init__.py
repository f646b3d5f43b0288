"""Was that an interruption? Confirms what the model's turn detection takes for speech."""
