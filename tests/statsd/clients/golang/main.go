// datadog-go: `statsd-go-client HOST PORT`; for each number on stdin one round of metrics, told with `sent NUMBER`.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/DataDog/datadog-go/v5/statsd"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func round(client *statsd.Client, number int) {
	for i := 0; i < 20; i++ {
		check(client.Incr("hits", []string{"path:a"}, 1))
	}
	check(client.Count("hits", 10, []string{"path:b"}, 1))
	check(client.Gauge("level", float64(number), nil, 1))
	for value := 1; value <= 10; value++ {
		check(client.TimeInMilliseconds("latency", float64(value), nil, 1))
		check(client.Histogram("size", float64(value), nil, 1))
		check(client.Distribution("depth", float64(value), nil, 1))
	}
	for user := 0; user < 3; user++ {
		check(client.Set("users", strconv.Itoa(10*number+user), nil, 1))
	}
	check(client.Event(statsd.NewEvent(fmt.Sprintf("round %d", number), "line one\nline two")))
	check(client.SimpleServiceCheck("go.up", statsd.Ok))
	check(client.Flush())
}

func main() {
	client, err := statsd.New(
		net.JoinHostPort(os.Args[1], os.Args[2]),
		statsd.WithNamespace("golang"),
		statsd.WithTags([]string{"env:test"}),
		statsd.WithoutTelemetry(),
		statsd.WithoutOriginDetection(),
		statsd.WithExtendedClientSideAggregation(), // several values in one line
	)
	check(err)
	fmt.Println("ready")
	numbers := bufio.NewScanner(os.Stdin)
	for numbers.Scan() {
		number, err := strconv.Atoi(numbers.Text())
		check(err)
		round(client, number)
		fmt.Println("sent", number)
	}
	check(client.Close())
}
