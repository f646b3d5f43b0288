"""The configuration: TOML in, frozen and checked values out."""
