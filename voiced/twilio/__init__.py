"""Twilio Media Streams: a carrier whose calls come over a WebSocket."""
