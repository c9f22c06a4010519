"""Packet loops: thin shells over core, run in processes that own nothing but their sockets."""
