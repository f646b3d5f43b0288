"""The daemon whole, with real parts around it: sockets, an offline model, simulated carriers."""
