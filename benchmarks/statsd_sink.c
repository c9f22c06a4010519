/*
 * StatsD servers that only count: statsd_sink HOST:PORT...
 *
 * Each line on stdin is answered with one line of JSON: since the start, datagrams and lines of all addresses, what the
 * kernel dropped at their sockets, and the datagrams of each. The sockets are looked at every 2 ms and never waited
 * for, so that no sender pays for waking this process; a real server is on another node.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SOCKETS_MAX = 16, BATCH = 64, DATAGRAM_MAX = 9000, LOOK_EVERY_NS = 2000000, MEMINFO_VARS = 9, MEMINFO_DROPS = 8 };

static int sockets[SOCKETS_MAX], count;
static uint64_t datagrams[SOCKETS_MAX], lines;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int bound(char *address) {
    char *colon = strrchr(address, ':');
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), bytes = 64 << 20;
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (!colon) { fprintf(stderr, "%s is no HOST:PORT\n", address); exit(2); }
    *colon = 0;
    at.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at)) die(address);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes)) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return fd;
}

static void look(void) {
    static char buffers[BATCH][DATAGRAM_MAX];
    static struct iovec parts[BATCH];
    static struct mmsghdr receives[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i], DATAGRAM_MAX};
        receives[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    for (int s = 0; s < count; s++) {
        int got;
        while ((got = recvmmsg(sockets[s], receives, BATCH, 0, NULL)) > 0) {
            datagrams[s] += (uint64_t)got;
            for (int i = 0; i < got; i++) {
                char *at = buffers[i], *end = at + receives[i].msg_len;
                while (at < end) { /* a line ends at \n or with the datagram; empty ones aren't lines */
                    char *newline = memchr(at, '\n', (size_t)(end - at));
                    char *stop = newline ? newline : end;
                    lines += stop > at;
                    at = stop + 1;
                }
            }
            if (got < BATCH) break;
        }
    }
}

static uint64_t dropped(void) {
    uint64_t sum = 0;
    for (int s = 0; s < count; s++) {
        uint32_t memory[MEMINFO_VARS] = {0};
        socklen_t length = sizeof memory;
        if (getsockopt(sockets[s], SOL_SOCKET, SO_MEMINFO, memory, &length)) die("SO_MEMINFO");
        sum += memory[MEMINFO_DROPS];
    }
    return sum;
}

int main(int argc, char **argv) {
    struct pollfd commands = {.fd = STDIN_FILENO, .events = POLLIN};
    if (argc < 2 || argc > SOCKETS_MAX + 1) { fprintf(stderr, "usage: see the head of statsd_sink.c\n"); return 2; }
    for (; count < argc - 1; count++) sockets[count] = bound(argv[count + 1]);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct timespec pause = {.tv_nsec = LOOK_EVERY_NS};
        char line[64];
        nanosleep(&pause, NULL);
        look();
        if (poll(&commands, 1, 0) <= 0) continue;
        ssize_t length = read(STDIN_FILENO, line, sizeof line);
        if (length <= 0) return 0;
        look();
        for (ssize_t i = 0; i < length; i++) {
            uint64_t sum = 0;
            if (line[i] != '\n') continue;
            for (int s = 0; s < count; s++) sum += datagrams[s];
            printf("{\"datagrams\": %lu, \"lines\": %lu, \"dropped\": %lu, \"each\": [", sum, lines, dropped());
            for (int s = 0; s < count; s++) printf("%s%lu", s ? ", " : "", datagrams[s]);
            puts("]}");
            fflush(stdout);
        }
    }
}
