"""`python -m proxy.worker`: a worker process, started by control with everything it needs as open descriptors.

It imports all it will ever use, gives up root and every capability, and only then takes its first socket.
"""

import argparse
import encodings.idna  # noqa: F401  getaddrinfo imports it on first use, when the library may be unreadable
import logging
import signal
import time

from proxy import logs
from proxy.worker import privileges, seccomp
from proxy.worker.dns_process import DnsProcess
from proxy.worker.process import WorkerProcess
from proxy.worker.relay_process import RelayProcess

try:
    import uvloop as loops
except ImportError:
    import asyncio as loops  # type: ignore[no-redef]

log = logging.getLogger("proxy.worker")


async def _serve(options: argparse.Namespace) -> None:
    process: WorkerProcess
    if options.role == "dns":
        process = DnsProcess(options.channel, options.counters, options.journal)
    else:
        process = RelayProcess(options.channel, options.counters)
    await process.ended.wait()


def main() -> None:
    """Run until control hangs up or says drain."""
    parser = argparse.ArgumentParser(prog="python -m proxy.worker")
    parser.add_argument("--role", choices=("dns", "relay"), default="dns")
    for name in ("channel", "counters"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("journal", "uid", "gid"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--name", required=True)
    parser.add_argument("--log-format", choices=("json", "text"), required=True)
    options = parser.parse_args()
    if options.role == "dns" and options.journal is None:
        parser.error("a dns worker needs --journal")
    logs.set_up(options.log_format, options.name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control drains us
    time.localtime()  # reads the time zone, for the log
    for refused in (privileges.drop(options.uid, options.gid), seccomp.deny()):
        if refused:
            log.warning("%s", refused)
    loops.run(_serve(options))


if __name__ == "__main__":
    main()
