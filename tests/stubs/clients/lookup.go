// One lookup by Go's own resolver. Prints "ok ADDRESS..." or "error REASON".
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	resolver := net.Resolver{PreferGo: true}
	addresses, err := resolver.LookupIPAddr(ctx, os.Args[1])
	var dnsError *net.DNSError
	if errors.As(err, &dnsError) {
		if dnsError.IsNotFound {
			fmt.Println("error not-found")
		} else {
			fmt.Println("error temporary", dnsError.Err)
		}
		return
	}
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Print("ok")
	for _, address := range addresses {
		fmt.Print(" ", address.IP)
	}
	fmt.Println()
}
