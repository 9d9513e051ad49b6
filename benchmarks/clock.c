/* What reading the monotonic clock twice takes, as around a timed call: prints seconds a pair, over PAIRS of them.
 *
 *     clock PAIRS */

#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

int main(int count, char **arguments)
{
    long pairs = count == 2 ? atol(arguments[1]) : 0;
    double begin = now(), inside = 0;
    for (long i = 0; i < pairs; i++) {
        double start = now();
        inside += now() - start;
    }
    printf("%.12f\n", (now() - begin) / (double)pairs);
    return pairs > 0 && inside >= 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
