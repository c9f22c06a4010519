/*
 * The least that a relay can be: relay plain|mmsg LISTEN_HOST PORT ENDPOINT_HOST PORT
 *
 * Sends each datagram on as it is, to one endpoint. `plain`: one recvfrom and one sendto each. `mmsg`: as many as wait,
 * up to 64, in one recvmmsg and one sendmmsg. It looks into none, and knows of no second endpoint.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, DATAGRAM_MAX = 9000 };

static char buffers[BATCH][DATAGRAM_MAX];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &made.sin_addr) != 1) die(host);
    return made;
}

static void plain(int in, int out, struct sockaddr_in *to) {
    for (;;) {
        ssize_t length = recvfrom(in, buffers[0], DATAGRAM_MAX, 0, NULL, NULL);
        if (length < 0) die("recvfrom");
        if (sendto(out, buffers[0], (size_t)length, 0, (struct sockaddr *)to, sizeof *to) < 0 && errno != ECONNREFUSED) die("sendto");
    }
}

static void batched(int in, int out, struct sockaddr_in *to) {
    static struct mmsghdr receives[BATCH], sends[BATCH];
    static struct iovec receive_parts[BATCH], send_parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        receive_parts[i] = (struct iovec){buffers[i], DATAGRAM_MAX};
        receives[i].msg_hdr = (struct msghdr){.msg_iov = &receive_parts[i], .msg_iovlen = 1};
        sends[i].msg_hdr = (struct msghdr){.msg_name = to, .msg_namelen = sizeof *to, .msg_iov = &send_parts[i], .msg_iovlen = 1};
    }
    for (;;) {
        int got = recvmmsg(in, receives, BATCH, MSG_WAITFORONE, NULL);
        if (got < 0) die("recvmmsg");
        for (int i = 0; i < got; i++) send_parts[i] = (struct iovec){buffers[i], receives[i].msg_len};
        for (int done = 0; done < got;) {
            int n = sendmmsg(out, sends + done, (unsigned)(got - done), 0);
            if (n < 0 && errno != ECONNREFUSED) die("sendmmsg");
            done += n < 0 ? 1 : n;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 6) { fprintf(stderr, "usage: see the head of relay.c\n"); return 2; }
    struct sockaddr_in at = address(argv[2], argv[3]), to = address(argv[4], argv[5]);
    int in = socket(AF_INET, SOCK_DGRAM, 0), out = socket(AF_INET, SOCK_DGRAM, 0), bytes = 4 << 20;
    if (setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes)) setsockopt(in, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (in < 0 || out < 0 || bind(in, (struct sockaddr *)&at, sizeof at)) die("bind");
    if (strcmp(argv[1], "mmsg")) plain(in, out, &to); else batched(in, out, &to);
}
