"""An engine made of three: speech to text, chat, text to speech."""
