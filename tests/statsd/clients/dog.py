"""PyPI `datadog`: `dog.py HOST PORT`; for each number on stdin one round of metrics, told with `sent NUMBER`."""

import sys

from datadog.dogstatsd import DogStatsd, base


def main(host: str, port: str) -> None:
    base.random = lambda: 0.0  # what is sampled is always sent, so that its total is known
    client = DogStatsd(
        host=host,
        port=int(port),
        namespace="dog",
        constant_tags=["env:test"],
        disable_telemetry=True,
        origin_detection_enabled=False,
        disable_buffering=False,
        flush_interval=3600,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        number = int(line)
        for _ in range(20):
            client.increment("hits", tags=["path:a"])
        client.increment("hits", 10, tags=["path:b"])
        for _ in range(4):
            client.increment("sampled", sample_rate=0.5)
        client.gauge("level", number)
        for milliseconds in range(1, 11):
            client.timing("latency", milliseconds)
            client.histogram("size", milliseconds)
            client.distribution("depth", milliseconds)
        for user in range(3):
            client.set("users", 10 * number + user)
        client.event(f"round {number}", "line one\nline two")
        client.service_check("dog.up", client.OK)
        client.flush()
        print("sent", number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
