"""For plugin authors: a call without a network, on a virtual clock."""
