"""A call's conversation: who speaks, what is heard, when it ends.

`conversation` puts the parts together. Of the rest of voiced only `voiced.call`, and, for what
plugins may do, `voiced.acting` know of it.
"""
