"""SIP: a user agent for trunks (RFC 3261 and its kin).

Sans-I/O from the URI to the user agent: bytes and times in, bytes and events out. `endpoint` and
`stub_resolver` touch the network, `leg` is a call's side of it. Nothing here knows the
configuration.
"""
