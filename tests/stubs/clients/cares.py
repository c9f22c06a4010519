"""One c-ares getaddrinfo lookup through pycares. Prints "ok ADDRESS..." or "error REASON"."""

import socket
import sys
import threading

import pycares

done = threading.Event()
line = ""


def finished(result: pycares.AddrInfoResult | None, error: int | None) -> None:
    """Turn c-ares's answer into the line that every stub prints."""
    global line
    if error is None:
        nodes = result.nodes if result else []
        line = " ".join(["ok", *(str(node.addr[0], "ascii") for node in nodes)])
    elif error in (pycares.errno.ARES_ENOTFOUND, pycares.errno.ARES_ENODATA):
        line = "error not-found"
    else:
        line = f"error temporary {error}"
    done.set()


channel = pycares.Channel()
channel.getaddrinfo(sys.argv[1], None, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM, callback=finished)
done.wait(60)
sys.stdout.write(line + "\n")
channel.close()
