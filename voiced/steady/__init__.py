"""An engine that survives: reconnects, renews, falls back, keeps to limits."""
