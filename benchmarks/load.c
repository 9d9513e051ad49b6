/* A load of statsd lines over UDP, open loop: at a set rate, whether or not anybody keeps up, or as fast as it goes.
 *
 *     load PORT WORKLOAD KEYS LINES RATE SECONDS
 *
 * WORKLOAD is "mixed" (counters, timers and gauges 6:3:1, whole numbers; each key has one kind), "timers" (no two
 * values alike) or "new" (counters, no two keys alike, in this process or in another one of a benchmark). LINES is how many a datagram has, RATE lines a second, 0 for no limit. Keys come in a random order,
 * each as often as the others. Datagrams are made beforehand, and sent many at a time. What was sent is printed:
 * datagrams, lines, the sum of what was added to counters, and the seconds that it took. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 32, LONGEST_LINE = 48, LEAST_LINES = 1 << 18 };

struct pool {
    size_t count, longest;
    char *bytes;
    uint32_t *sizes, *counted; /* by datagram: bytes, and what it adds to counters */
};

static uint64_t state = 88172645463325252u;

static uint64_t chance(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void shuffle(uint32_t *keys, size_t count)
{
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = chance(i + 1);
        uint32_t key = keys[i];
        keys[i] = keys[j];
        keys[j] = key;
    }
}

static int line(char *to, int timers, uint32_t key, size_t number, uint32_t *counted)
{
    if (timers)
        return sprintf(to, "shop.web.%u:%u.%06zu|ms", key, 1 + key % 97, number % 1000000);
    if (key % 10 < 6) {
        *counted += 1;
        return sprintf(to, "shop.web.%u:1|c", key);
    }
    return sprintf(to, "shop.web.%u:%u|%s", key, (unsigned)chance(1000), key % 10 < 9 ? "ms" : "g");
}

/* The next datagram of counters whose keys were never sent. */
static uint32_t new_keys(char *to, size_t lines)
{
    static size_t number;
    char *end = to;
    for (size_t i = 0; i < lines; i++)
        end += sprintf(end, "shop.job.%d.%zu:1|c\n", (int)getpid(), number++);
    return (uint32_t)(end - 1 - to);
}

static struct pool make_pool(int timers, size_t keys, size_t lines)
{
    size_t wanted = keys > LEAST_LINES ? keys : LEAST_LINES;
    struct pool pool = {.count = (wanted + lines - 1) / lines, .longest = lines * LONGEST_LINE};
    uint32_t *order = malloc(keys * sizeof *order);
    pool.bytes = malloc(pool.count * pool.longest);
    pool.sizes = malloc(pool.count * sizeof *pool.sizes);
    pool.counted = calloc(pool.count, sizeof *pool.counted);
    if (!order || !pool.bytes || !pool.sizes || !pool.counted)
        exit(1);
    for (size_t i = 0; i < keys; i++)
        order[i] = (uint32_t)i;
    for (size_t i = 0, number = 0; i < pool.count; i++) {
        char *begin = pool.bytes + i * pool.longest, *end = begin;
        for (size_t j = 0; j < lines; j++, number++) {
            if (number % keys == 0)
                shuffle(order, keys);
            if (j)
                *end++ = '\n';
            end += line(end, timers, order[number % keys], number, &pool.counted[i]);
        }
        pool.sizes[i] = (uint32_t)(end - begin);
    }
    free(order);
    return pool;
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void wait_until(double when)
{
    struct timespec at = {.tv_sec = (time_t)when, .tv_nsec = (long)((when - (double)(time_t)when) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
        ;
}

int main(int count, char **arguments)
{
    if (count != 7)
        return 2;
    size_t keys = strtoul(arguments[3], NULL, 10), lines = strtoul(arguments[4], NULL, 10);
    double rate = strtod(arguments[5], NULL) / (double)lines, lasts = strtod(arguments[6], NULL);
    struct pool pool = make_pool(!strcmp(arguments[2], "timers"), keys, lines);
    int all_new = !strcmp(arguments[2], "new");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&to, sizeof to))
        return 1;

    struct mmsghdr messages[AT_ONCE];
    struct iovec parts[AT_ONCE];
    memset(messages, 0, sizeof messages);
    size_t place = 0, sent = 0, counted = 0;
    double begin = now(), at = begin;
    while ((at = now()) < begin + lasts) {
        if (rate > 0 && (double)sent > (at - begin) * rate) {
            wait_until(begin + (double)sent / rate);
            continue;
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            size_t number = (place + i) % pool.count;
            if (all_new) {
                pool.sizes[number] = new_keys(pool.bytes + number * pool.longest, lines);
                pool.counted[number] = (uint32_t)lines;
            }
            parts[i] = (struct iovec){pool.bytes + number * pool.longest, pool.sizes[number]};
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        int done = sendmmsg(sock, messages, AT_ONCE, 0);
        for (int i = 0; i < done; i++)
            counted += pool.counted[(place + (size_t)i) % pool.count];
        if (done > 0) {
            sent += (size_t)done;
            place = (place + (size_t)done) % pool.count;
        }
    }
    printf("%zu %zu %zu %.6f\n", sent, sent * lines, counted, at - begin);
    return 0;
}
