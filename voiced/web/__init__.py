"""HTTP: the webhooks that carriers call."""
