/* The floor: a server of UDP that finds the ends of lines, and does nothing with them.
 *
 *     floor BUFFER
 *
 * The kernel is asked to keep BUFFER bytes. The port is printed at the start; for each line on standard input, how many
 * datagrams and lines have come so far. It ends with the input. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_ONCE = 256, LONGEST = 2048 };

static char bytes[AT_ONCE][LONGEST];

static size_t lines_in(const char *at, size_t size)
{
    size_t lines = 0;
    for (const char *end = at + size; at < end; lines++) {
        const char *found = memchr(at, '\n', (size_t)(end - at));
        at = found ? found + 1 : end;
    }
    return lines;
}

int main(int count, char **arguments)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int sock = socket(AF_INET, SOCK_DGRAM, 0), buffer = count > 1 ? atoi(arguments[1]) : 1 << 22;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (sock < 0 || bind(sock, (struct sockaddr *)&address, length))
        return 1;
    if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
        setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    getsockname(sock, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    struct mmsghdr messages[AT_ONCE];
    struct iovec parts[AT_ONCE];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < AT_ONCE; i++) {
        parts[i] = (struct iovec){bytes[i], LONGEST};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    size_t datagrams = 0, lines = 0;
    struct pollfd polled[] = {{.fd = sock, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        poll(polled, 2, -1);
        int got;
        while ((got = recvmmsg(sock, messages, AT_ONCE, MSG_DONTWAIT, NULL)) > 0) {
            datagrams += (size_t)got;
            for (int i = 0; i < got; i++)
                lines += lines_in(bytes[i], messages[i].msg_len);
        }
        if (polled[1].revents) {
            char asked[64];
            if (read(STDIN_FILENO, asked, sizeof asked) <= 0)
                return 0;
            printf("%zu %zu\n", datagrams, lines);
            fflush(stdout);
        }
    }
}
