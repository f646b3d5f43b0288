"""The plugins that ship with voiced."""
