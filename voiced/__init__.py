"""voiced: a telephone daemon for speech-to-speech models."""

__version__ = "0.1.0"
