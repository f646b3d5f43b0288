"""The offline model: real voice activity detection, real rules, faults on demand.

`server.serve` is the door, `options` what it can be told. Behind it, sans-I/O: `dialogue` is one
connection's conversation, with `session`, `items` and `response` for its parts, `schema` and
`shapes` for what clients may send, `beta` and `ordering` for how other servers say the same;
`hearing` and `recognise` are its ears, `answers` what it says and `functions` what it calls.
`performer` puts it on a clock, `speech` gives it a voice, `wire` plays dead when told to. `rest`
serves the same over HTTP, in the shapes of `transcribe` (read by `multipart`), `chat` and
`speaking`.
"""
