/*
 * StatsD load over UDP at a fixed rate: counters, sampled counters, timers and gauges with 2,000 names.
 *
 *   statsd_client HOST PORT DATAGRAMS_PER_SECOND SECONDS LINES BATCH
 *
 * Each datagram holds LINES lines; BATCH datagrams leave in one sendmmsg, when the last of them is due, from 16 sockets
 * in turn. After a stall of more than 2 ms it goes on at its rate and doesn't catch up in one burst. SIGTERM ends it
 * early. Prints one line of JSON; cpu_us is this process's, with what its sends did in the kernel.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

enum { NAMES = 2000, FLOWS = 16, BATCH_MAX = 1024, LINES_MAX = 20, LINE_MAX_BYTES = 72, CATCH_UP_NS = 2000000 };

static volatile sig_atomic_t ended;

static void end(int signal_number) {
    (void)signal_number;
    ended = 1;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    static const char *types[] = {"|c", "|ms", "|c|@0.5", "|g"};
    static char wires[NAMES][LINES_MAX * LINE_MAX_BYTES];
    static struct iovec parts[NAMES];
    static struct mmsghdr sends[BATCH_MAX];
    int flows[FLOWS];
    if (argc != 7) { fprintf(stderr, "usage: see the head of statsd_client.c\n"); return 2; }
    double rate = atof(argv[3]), seconds = atof(argv[4]);
    int lines = atoi(argv[5]), batch = atoi(argv[6]);
    if (rate <= 0 || lines < 1 || lines > LINES_MAX || batch < 1 || batch > BATCH_MAX) return 2;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) die(argv[1]);
    for (int i = 0; i < FLOWS; i++) {
        flows[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (flows[i] < 0 || connect(flows[i], (struct sockaddr *)&to, sizeof to)) die("connect");
    }
    for (int i = 0, name = 0; i < NAMES; i++) {
        char *end_of_wire = wires[i];
        for (int line = 0; line < lines; line++, name++)
            end_of_wire += sprintf(end_of_wire, "%sbench.service%04d.requests.finished:%d%s|#env:prod,zone:a",
                                   line ? "\n" : "", name % NAMES, 1 + i % 977, types[name % 4]);
        parts[i] = (struct iovec){wires[i], (size_t)(end_of_wire - wires[i])};
    }
    prctl(PR_SET_TIMERSLACK, 1000);
    signal(SIGTERM, end);
    uint64_t step = (uint64_t)((double)batch * 1e9 / rate), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t began = clock_ns(CLOCK_MONOTONIC), due = began + step, until = began + (uint64_t)(seconds * 1e9);
    uint64_t sent = 0, refused = 0, stalled = 0, batches = 0, now = began;
    for (; !ended && due <= until; due += step, batches++) {
        while ((now = clock_ns(CLOCK_MONOTONIC)) < due && !ended) {
            struct timespec when = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
        }
        if (now > due + CATCH_UP_NS) { stalled += now - due; until += now - due; due = now; }
        for (int i = 0; i < batch; i++)
            sends[i].msg_hdr = (struct msghdr){.msg_iov = &parts[(sent + (uint64_t)i) % NAMES], .msg_iovlen = 1};
        for (int done = 0; done < batch;) {
            int n = sendmmsg(flows[batches % FLOWS], sends + done, (unsigned)(batch - done), 0);
            if (n < 0 && errno == ECONNREFUSED) { refused++; continue; } /* tells of an earlier one, nothing was sent */
            if (n < 0) die("sendmmsg");
            done += n;
        }
        sent += (uint64_t)batch;
    }
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("{\"datagrams\": %lu, \"lines\": %lu, \"seconds\": %.6f, \"cpu_us\": %.1f, \"refused\": %lu, \"stalled_ms\": %.1f}\n",
           sent, sent * (uint64_t)lines, (double)(clock_ns(CLOCK_MONOTONIC) - began) / 1e9, (double)cpu / 1e3, refused, (double)stalled / 1e6);
    return 0;
}
