"""RTP: the audio of SIP calls (RFC 3550 and its kin).

Sans-I/O from the packet to the media stream; `socket` owns the ports and the clock that paces all
streams of the process. Nothing here knows SIP.
"""
