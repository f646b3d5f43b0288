"""The plugins that ship with voiced, installed as `voiced_plugins`; there is none yet."""
