/* A cell under many threads, without any interpreter: for the thread sanitizer.

   Writers go the short way, or where it is closed let a value wait in a list; one in some lets it wait anyway, as a value
   of another type does. A folder puts what waits into the state; a collector takes the state. At the end every unit that was
   written was taken. As in cell.c, a list has a lock of its own, and whoever folds or takes holds another.

   cc -std=c11 -fsanitize=thread -g -pthread -DCELL_ATOMIC -Imetricslib/native tests/c/stress_cell.c -o stress && ./stress */

#define _DEFAULT_SOURCE
#include "cell.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITERS = 4, TIMES = 200000 };

static cell shared;
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER, fold_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t waiting; /* the list: as it holds only ones, its length is enough */
static int64_t taken;   /* by whoever holds fold_lock */
static atomic_int writing = WRITERS;

static void let_wait(void) {
    cell_close(&shared, CELL_PENDING);
    pthread_mutex_lock(&list_lock);
    waiting++;
    pthread_mutex_unlock(&list_lock);
}

static void *write_ones(void *argument) {
    unsigned odd = *(unsigned *)argument;
    number_value one = {.whole = 1};
    for (unsigned i = 0; i < TIMES; i++)
        if (i % odd == 0 || !cell_count(&shared, one, WHOLE))
            let_wait();
    atomic_fetch_sub(&writing, 1);
    return NULL;
}

/* The caller holds fold_lock. */
static void fold(void) {
    int64_t batch, state;
    cell_close(&shared, CELL_PENDING);
    pthread_mutex_lock(&list_lock);
    batch = waiting;
    pthread_mutex_unlock(&list_lock);
    cell_lock(&shared);
    state = shared.base_kind == WHOLE ? shared.base.whole : 0;
    cell_unlock(&shared);
    sched_yield(); /* here Python computes */
    pthread_mutex_lock(&list_lock);
    waiting -= batch;
    pthread_mutex_unlock(&list_lock);
    cell_lock(&shared);
    shared.base.whole = state + batch;
    shared.base_kind = WHOLE;
    pthread_mutex_lock(&list_lock); /* as a list's length is read: now, and perhaps no longer true in a moment */
    if (!waiting)
        shared.shut &= (uint8_t)~CELL_PENDING;
    pthread_mutex_unlock(&list_lock);
    cell_unlock(&shared);
}

static void take(void) {
    cell_lock(&shared);
    taken += shared.base_kind == WHOLE ? shared.base.whole : 0;
    shared.base_kind = NOTHING;
    cell_unlock(&shared);
}

static void *fold_and_take(void *argument) {
    int takes = *(unsigned *)argument != 0;
    do {
        pthread_mutex_lock(&fold_lock);
        fold();
        if (takes)
            take();
        pthread_mutex_unlock(&fold_lock);
        sched_yield();
    } while (atomic_load(&writing));
    return NULL;
}

int main(void) {
    pthread_t threads[WRITERS + 2];
    unsigned odd[WRITERS] = {3, 1000, 100000, 17}, takes[2] = {0, 1};
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_ones, &odd[i]);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[WRITERS + i], NULL, fold_and_take, &takes[i]);
    for (int i = 0; i < WRITERS + 2; i++)
        pthread_join(threads[i], NULL);
    fold();
    take();
    printf("written %d, taken %lld\n", WRITERS * TIMES, (long long)taken);
    return taken == WRITERS * TIMES ? EXIT_SUCCESS : EXIT_FAILURE;
}
