"""PyPI `statsd`: `plain.py HOST PORT`; for each number on stdin one round of metrics, told with `sent NUMBER`."""

import random
import sys

import statsd


def main(host: str, port: str) -> None:
    random.random = lambda: 0.0  # what is sampled is always sent, so that its total is known
    client = statsd.StatsClient(host, int(port), prefix="plain")
    print("ready", flush=True)
    for line in sys.stdin:
        number = int(line)
        for _ in range(20):
            client.incr("hits")
        client.incr("hits", 5)
        for _ in range(4):
            client.incr("sampled", rate=0.5)
        client.gauge("level", number)
        client.gauge("below", -number)
        client.gauge("moved", 3, delta=True)
        client.gauge("moved", -1, delta=True)
        with client.pipeline() as pipe:
            for milliseconds in range(1, 11):
                pipe.timing("latency", milliseconds)
            pipe.incr("hits", 5)
        for user in range(3):
            client.set("users", 10 * number + user)
        print("sent", number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
