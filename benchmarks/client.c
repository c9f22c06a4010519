/*
 * DNS load over UDP with every answer checked: ID, question byte for byte, QR, RCODE 0, at least one record.
 *
 *   client closed HOST PORT NAMES INFLIGHT COUNT        as fast as answers come, batched, one socket
 *   client rate HOST PORT NAMES QPS COUNT TIMEOUT_MS    a fixed schedule over 128 sockets, no retries
 *
 * NAMES is a file with one name a line, asked in turn for type A. Prints one line of JSON. In `rate` the time of an
 * answer counts from when its question was due, so a stall delays nothing that it doesn't also measure.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 12, QUERY_MAX = 300, ANSWER_MAX = 4096, INFLIGHT_MAX = 256, FLOWS = 128, FLOW_IDS = 4096 };

struct query { int length; uint8_t wire[QUERY_MAX]; };

static struct query *queries;
static long query_count;
static struct sockaddr_in server;
static uint64_t answered, bad, lost, duplicates;
static uint32_t *latencies; /* nanoseconds, one for each good answer */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) die("calloc");
    return memory;
}

static void read_names(const char *path) {
    char line[512];
    long capacity = 1024;
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    queries = room((size_t)capacity, sizeof *queries);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!line[0]) continue;
        if (query_count == capacity) {
            capacity *= 2;
            queries = realloc(queries, (size_t)capacity * sizeof *queries);
            if (!queries) die("realloc");
        }
        struct query *query = &queries[query_count++];
        uint8_t *to = query->wire;
        memcpy(to, "\0\0\1\0\0\1\0\0\0\0\0\0", HEADER); /* RD, one question */
        to += HEADER;
        for (char *label = strtok(line, "."); label; label = strtok(NULL, ".")) {
            size_t length = strlen(label);
            *to++ = (uint8_t)length;
            memcpy(to, label, length);
            to += length;
        }
        memcpy(to, "\0\0\1\0\1", 5); /* root, A, IN */
        query->length = (int)(to + 5 - query->wire);
    }
    fclose(file);
    if (!query_count) { fprintf(stderr, "no names in %s\n", path); exit(1); }
}

static int connected(int flags) {
    int fd = socket(AF_INET, SOCK_DGRAM | flags, 0), size = 4 << 20;
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (connect(fd, (struct sockaddr *)&server, sizeof server)) die("connect");
    return fd;
}

static int good(const uint8_t *answer, int length, const struct query *query) {
    return length >= query->length && (answer[2] & 0x80) && !(answer[3] & 15) && (answer[6] || answer[7])
        && !memcmp(answer + HEADER, query->wire + HEADER, (size_t)(query->length - HEADER));
}

static void closed(int inflight, uint64_t count) {
    static uint8_t out[INFLIGHT_MAX][QUERY_MAX], in[INFLIGHT_MAX][ANSWER_MAX];
    static struct mmsghdr sends[INFLIGHT_MAX], receives[INFLIGHT_MAX];
    static struct iovec send_parts[INFLIGHT_MAX], receive_parts[INFLIGHT_MAX];
    static uint64_t sent_at[INFLIGHT_MAX];
    static uint16_t ids[INFLIGHT_MAX];
    static const struct query *asked[INFLIGHT_MAX];
    uint64_t started = 0;
    uint16_t generation = 1;
    int fd = connected(0), ready[INFLIGHT_MAX], ready_count = 0;
    struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int i = 0; i < inflight; i++) {
        receive_parts[i] = (struct iovec){in[i], ANSWER_MAX};
        receives[i].msg_hdr = (struct msghdr){.msg_iov = &receive_parts[i], .msg_iovlen = 1};
        sends[i].msg_hdr = (struct msghdr){.msg_iov = &send_parts[i], .msg_iovlen = 1};
        ready[ready_count++] = i;
    }
    while (answered + bad + lost < count) {
        uint64_t now = now_ns();
        int sending = 0;
        for (int r = 0; r < ready_count && started < count; r++, started++, sending++) {
            int slot = ready[r];
            const struct query *query = asked[slot] = &queries[started % (uint64_t)query_count];
            ids[slot] = (uint16_t)(generation++ << 8 | slot);
            memcpy(out[slot], query->wire, (size_t)query->length);
            out[slot][0] = (uint8_t)(ids[slot] >> 8);
            out[slot][1] = (uint8_t)ids[slot];
            send_parts[sending] = (struct iovec){out[slot], (size_t)query->length};
            sent_at[slot] = now;
        }
        for (int done = 0; done < sending;) {
            int n = sendmmsg(fd, sends + done, (unsigned)(sending - done), 0);
            if (n < 0) die("sendmmsg");
            done += n;
        }
        ready_count = 0;
        int got = recvmmsg(fd, receives, (unsigned)inflight, MSG_WAITFORONE, NULL);
        if (got < 0 && (errno == EAGAIN || errno == ECONNREFUSED)) {
            for (int slot = 0; slot < inflight; slot++)
                if (asked[slot]) { asked[slot] = NULL; lost++; ready[ready_count++] = slot; }
            continue;
        }
        if (got < 0) die("recvmmsg");
        now = now_ns();
        for (int i = 0; i < got; i++) {
            uint16_t id = (uint16_t)(in[i][0] << 8 | in[i][1]);
            int slot = id & 255;
            if (slot >= inflight || !asked[slot] || ids[slot] != id) { duplicates++; continue; }
            if (good(in[i], (int)receives[i].msg_len, asked[slot])) latencies[answered++] = (uint32_t)(now - sent_at[slot]);
            else bad++;
            asked[slot] = NULL;
            ready[ready_count++] = slot;
        }
    }
    close(fd);
}

static void rate(double qps, uint64_t count, uint64_t timeout_ns) {
    static int flows[FLOWS];
    static uint8_t answer[ANSWER_MAX];
    uint64_t *due = room(count, sizeof *due);
    uint8_t *finished = room(count, 1), wire[QUERY_MAX];
    struct epoll_event events[FLOWS];
    int poller = epoll_create1(0);
    prctl(PR_SET_TIMERSLACK, 1000);
    for (int i = 0; i < FLOWS; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = i};
        flows[i] = connected(SOCK_NONBLOCK);
        epoll_ctl(poller, EPOLL_CTL_ADD, flows[i], &event);
    }
    uint64_t start = now_ns() + 1000000, sent = 0, end = start + (uint64_t)((double)count * 1e9 / qps) + timeout_ns, now;
    for (uint64_t k = 0; k < count; k++) due[k] = start + (uint64_t)((double)k * 1e9 / qps);
    while ((now = now_ns()) < end && answered + bad < count) {
        for (; sent < count && due[sent] <= now; sent++) {
            const struct query *query = &queries[sent % (uint64_t)query_count];
            uint16_t id = (uint16_t)(sent / FLOWS % FLOW_IDS);
            memcpy(wire, query->wire, (size_t)query->length);
            wire[0] = (uint8_t)(id >> 8);
            wire[1] = (uint8_t)id;
            /* A refused or full socket is a question without an answer; it is not sent again. */
            if (send(flows[sent % FLOWS], wire, (size_t)query->length, 0) < 0 && errno != ECONNREFUSED && errno != EAGAIN) die("send");
        }
        uint64_t until = sent < count ? due[sent] : end;
        struct timespec patience = {.tv_sec = (time_t)((until - now) / 1000000000u), .tv_nsec = (long)((until - now) % 1000000000u)};
        if (until <= now) patience = (struct timespec){0};
        int n = epoll_pwait2(poller, events, FLOWS, &patience, NULL);
        for (int i = 0; i < n; i++) {
            int flow = events[i].data.fd;
            ssize_t length;
            while ((length = recv(flows[flow], answer, sizeof answer, 0)) >= HEADER) {
                uint64_t id = (uint64_t)(answer[0] << 8 | answer[1]);
                /* The newest question of this flow with this ID. */
                uint64_t k = id * FLOWS + (uint64_t)flow, turn = (uint64_t)FLOW_IDS * FLOWS;
                if (id >= FLOW_IDS || k >= sent) { bad++; continue; }
                k += (sent - 1 - k) / turn * turn;
                now = now_ns();
                if (finished[k]) duplicates++;
                else if (!good(answer, (int)length, &queries[k % (uint64_t)query_count])) { finished[k] = 1; bad++; }
                else if (now - due[k] <= timeout_ns) { finished[k] = 1; latencies[answered++] = (uint32_t)(now - due[k]); }
            }
        }
    }
    lost = count - answered - bad;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(double q) {
    return answered ? latencies[(uint64_t)((double)(answered - 1) * q)] / 1000.0 : 0;
}

int main(int argc, char **argv) {
    if (argc < 7) { fprintf(stderr, "usage: see the head of client.c\n"); return 2; }
    int is_rate = !strcmp(argv[1], "rate");
    uint64_t count = strtoull(argv[6], NULL, 10);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) die(argv[2]);
    read_names(argv[4]);
    latencies = room(count + INFLIGHT_MAX, sizeof *latencies);
    uint64_t started = now_ns();
    if (is_rate) {
        if (argc < 8) return 2;
        rate(atof(argv[5]), count, strtoull(argv[7], NULL, 10) * 1000000u);
    } else {
        int inflight = atoi(argv[5]);
        if (inflight < 1 || inflight > INFLIGHT_MAX) return 2;
        closed(inflight, count);
    }
    double seconds = (double)(now_ns() - started) / 1e9;
    qsort(latencies, answered, sizeof *latencies, ascending);
    printf("{\"answered\": %lu, \"bad\": %lu, \"lost\": %lu, \"duplicates\": %lu, \"seconds\": %.6f,"
           " \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           answered, bad, lost, duplicates, seconds,
           quantile_us(.5), quantile_us(.99), quantile_us(.999), quantile_us(1));
    return 0;
}
