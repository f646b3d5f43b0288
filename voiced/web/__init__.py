"""HTTP: the webhooks that carriers call, and the listener for operators."""
