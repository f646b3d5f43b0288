"""Plugins: found, checked, given their calls; kept apart from them."""
