/* The intake's table under two threads, without any interpreter: for the thread sanitizer.

   The owner makes series and gives pieces their effect, a batch at a time, as _intake.c does; a collector moves what
   happened aside and adds it up. At the end everything that was fed was collected.

   cc -std=c11 -fsanitize=thread -g -pthread -Imetricslib/native -Iforwarder tests/c/stress_table.c -lm -o stress && ./stress */

#define _GNU_SOURCE
#include "_table.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCHES = 4000, BATCH = 100, KEYS = 1000 };

static table shared;
static atomic_int feeding = 1;
static uint64_t counted, timed; /* the collector's */

static void feed(uint32_t number) {
    piece p = {.value = 1, .weight = 1};
    int32_t series = (int32_t)(number % KEYS);
    pthread_mutex_lock(&shared.mutex);
    if ((uint32_t)series >= shared.count && add_series(&shared, series % 2 ? TIMER : COUNTER) < 0)
        abort();
    apply_piece(&shared, (uint32_t)series < shared.count ? (uint32_t)series : 0, &p);
    pthread_mutex_unlock(&shared.mutex);
}

static void *feed_all(void *unused) {
    for (uint32_t number = 0; number < BATCHES * BATCH; number++)
        feed(number);
    atomic_store(&feeding, 0);
    return unused;
}

static void collect(void) {
    taken *all;
    uint32_t count;
    pthread_mutex_lock(&shared.mutex);
    all = malloc((shared.touched_count + 1) * sizeof *all);
    if (!all)
        abort();
    count = take_touched(&shared, all);
    pthread_mutex_unlock(&shared.mutex);
    for (uint32_t i = 0; i < count; i++) {
        if (all[i].was.kind == COUNTER)
            counted += (uint64_t)all[i].was.whole;
        else
            timed += all[i].was.sketch->buckets ? (uint64_t)all[i].was.sketch->count : all[i].was.sketch->n;
        free_value(&all[i].was);
    }
    free(all);
}

static void *collect_all(void *unused) {
    while (atomic_load(&feeding)) {
        collect();
        sched_yield();
    }
    collect();
    return unused;
}

int main(void) {
    pthread_t threads[2];
    pthread_mutex_init(&shared.mutex, NULL);
    shared.exact = 8;
    pthread_create(&threads[0], NULL, feed_all, NULL);
    pthread_create(&threads[1], NULL, collect_all, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    printf("fed %d, collected %llu\n", BATCHES * BATCH, (unsigned long long)(counted + timed));
    return counted + timed == BATCHES * BATCH && shared.aggregated == BATCHES * BATCH ? EXIT_SUCCESS : EXIT_FAILURE;
}
