/* One getaddrinfo() lookup. Prints "ok ADDRESS..." sorted by the library, or "error REASON". */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
    char text[INET6_ADDRSTRLEN];
    if (argc != 2) return 2;
    int error = getaddrinfo(argv[1], NULL, &hints, &list);
    if (error) {
        printf("error %s\n", error == EAI_AGAIN ? "temporary" : "not-found");
        return 0;
    }
    printf("ok");
    for (struct addrinfo *entry = list; entry; entry = entry->ai_next) {
        const void *address = entry->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)entry->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)entry->ai_addr)->sin6_addr;
        printf(" %s", inet_ntop(entry->ai_family, address, text, sizeof text));
    }
    printf("\n");
    freeaddrinfo(list);
    return 0;
}
