"""The `realtime` engine: the OpenAI Realtime protocol over a WebSocket.

`client.RealtimeEngine` is the door. Behind it, all sans-I/O: `session` is the state machine, with
`setup` (before it is ready), `answers`, `responses`, `items`, `calls` (of functions), `caller`,
`turns`, `trouble` and `outbox` for its parts; `events` and `dialect` are the wire, `servers` and
`update` what is asked of which server, `errors` what its complaints mean.
"""
