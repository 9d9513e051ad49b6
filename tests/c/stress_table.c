/* Feeding, collecting and expiring at once, over the code that the aggregator runs, without an interpreter.

   The owner feeds lines in batches; between batches it lets series expire, some of which come again at once. Two
   collectors move aside what was added up, pause as an interpreter would, and free what expired. `lock` stands for the
   interpreter lock. At the end everything that was fed was collected, under the key that was written.

   Run by `make sanitize`, under the thread sanitizer and under the address sanitizer. */

#include "batch.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

enum { KEYS = 700, ROUNDS = 3000, LINES = 60, COLLECTORS = 2 };

static table shared;
static int64_t member_bytes[2];
static batch owner;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int feeding = 1;
static atomic_ullong collected[KEYS], freed;
static unsigned long long fed[KEYS];

static int same_key(const void *one, const void *other) { return !strcmp(one, other); }

static uint64_t key_hash(const char *key) { return hash_of(key, (uint32_t)strlen(key), 7); }

static char *key_copy(const char *text, uint32_t length) {
    char *key = malloc(length + 1);
    if (!key)
        abort();
    memcpy(key, text, length);
    key[length] = 0;
    return key;
}

/* As module.c: one answer for each raw key that is not known, under the lock. */
static void ask(batch *b) {
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        char *key;
        if (g->series != NOT_FOUND || (g->series = find_series(&shared, &g->written, g->hash)) != NOT_FOUND)
            continue;
        key = key_copy(g->written.key, g->written.key_length);
        g->series = series_of_key(&shared, g->written.kind, key, key_hash(key));
        if (g->series == NOT_FOUND)
            g->series = add_series(&shared, g->written.kind, key, key_hash(key), 0);
        else
            free(key);
        if (g->series < 0 || add_raw_key(&shared, &g->written, g->hash, g->series) < 0)
            abort();
    }
    pthread_mutex_unlock(&lock);
}

static enum kind kind_of(int number) { return number % 3 == 0 ? COUNTER : number % 3 == 1 ? TIMER : UNIQUE; }

static void expire_some(unsigned *chance) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < KEYS / 2; i++) {
        char key[16];
        int number = rand_r(chance) % KEYS;
        snprintf(key, sizeof key, "k%d", number);
        expire(&shared, kind_of(number), key, key_hash(key));
    }
    forget_raw_keys(&shared);
    pthread_mutex_unlock(&lock);
}

static void *feed(void *unused) {
    unsigned chance = 1;
    char text[LINES * 24];
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = 0;
        for (int i = 0; i < LINES; i++) {
            int number = rand_r(&chance) % KEYS;
            static const char *const forms[] = {[COUNTER] = "k%d:1|c\n", [TIMER] = "k%d:5|ms\n", [UNIQUE] = "k%d:%d|s\n"};
            size += (size_t)snprintf(text + size, sizeof text - size, forms[kind_of(number)], number, round * LINES + i);
            fed[number]++;
        }
        if (round % 3 == 0)
            expire_some(&chance);
        read_lines(&owner, text, text + size);
        finish(&owner);
    }
    atomic_store(&feeding, 0);
    return unused;
}

static unsigned long long count_of(const series *s) {
    switch (s->kind) {
    case COUNTER: return (unsigned long long)s->whole;
    case UNIQUE: return s->set->used;
    }
    sketch_settle(s->sketch);
    return s->sketch->buckets ? (unsigned long long)s->sketch->count : s->sketch->n;
}

static void collect(void) {
    taken *all;
    account sofar;
    uint32_t count = take_touched(&shared, &all, &sofar), at = 0;
    void *key;
    if (!all)
        abort();
    sched_yield(); /* the interpreter lock is not to be had at once */
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < count; i++)
        collected[atoi((char *)shared.keys[all[i].number].key + 1)] += count_of(&all[i].was);
    let_go(&shared, all, count);
    while ((key = release(&shared, &at))) {
        freed++;
        free(key);
    }
    pthread_mutex_unlock(&lock);
    free(all);
}

static void *collect_all(void *unused) {
    while (atomic_load(&feeding))
        collect();
    collect();
    return unused;
}

int main(void) {
    pthread_t threads[1 + COLLECTORS];
    int wrong = 0;
    shared.exact = 8;
    shared.most_members = shared.most_raw_keys = UINT32_MAX;
    shared.most_raw_key_bytes = SIZE_MAX;
    shared.members = (member_share){member_bytes, INT64_MAX};
    shared.same_key = same_key;
    owner.table = &shared;
    owner.ask = ask;
    if (table_init(&shared) < 0)
        abort();
    pthread_create(&threads[0], NULL, feed, NULL);
    for (int i = 1; i <= COLLECTORS; i++)
        pthread_create(&threads[i], NULL, collect_all, NULL);
    for (int i = 0; i <= COLLECTORS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < KEYS; i++)
        wrong += collected[i] != fed[i];
    printf("%d lines, %llu series freed, %d wrong\n", ROUNDS * LINES, (unsigned long long)freed, wrong);
    wrong += freed == 0 || shared.account.aggregated != ROUNDS * LINES;
    for (uint32_t i = 0; i < shared.count; i++)
        free(shared.keys[i].key);
    table_free(&shared);
    wrong += member_bytes[0] != 0;
    return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
