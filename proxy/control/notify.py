"""Tells systemd how the run is doing (sd_notify); silent anywhere else."""

import os
import socket


def notify(state: str) -> None:
    """Send `READY=1`, `STOPPING=1` and the like to the service manager, if there is one."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            pass  # a manager that is gone needs no news
