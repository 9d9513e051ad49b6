/* A batch of lines: read, looked up in the table of series, and applied to it. It does not use the interpreter.

   1. Read: each line becomes groups of samples; all samples of a group are of one series.
   2. Look up: find the series of all groups by their raw keys. All of a batch are looked up together, so that the memory
      of later ones can be prefetched.
   3. Ask: unknown raw keys and slow lines are questions. (A slow line is one that only parser.py can parse.) `ask`
      answers them, at most once for each batch. In it, the caller takes `lock`, see table.h.
   4. Apply: add the samples to their series. This holds the table's mutex. Only a collector competes for it, and holds it
      for a short time, to move aggregates aside.

   A batch belongs to one thread, the owner. It is sized to fit into the processor's caches. */

#ifndef FORWARDER_NATIVE_BATCH_H
#define FORWARDER_NATIVE_BATCH_H

#include "table.h"

enum {
    GROUPS = 512,
    SAMPLES = MOST_SAMPLES,
    AHEAD = 8,           /* number of groups by which memory is prefetched */
    SLOW_LINE = -1000,   /* the series of a group that is a slow line */
    UNANSWERED = -1001,  /* the series of a group whose question could not be answered */
};

/* Consecutive samples of one line and one kind, and so of one series; or a slow line. */
typedef struct {
    written written;
    int32_t series;
    uint32_t first, count; /* samples */
    uint64_t hash;
    uint32_t place; /* of the raw key, between the two steps of the look-up */
    uint32_t length;
    const char *line;
} group;

/* A sample that parser.py parsed, with its series, or the refusal. */
typedef struct {
    int32_t series;
    sample sample;
} effect;

/* The result of parser.py for a slow line. */
typedef struct {
    uint32_t count, bad, lost; /* lost: 1 if the line could not be parsed, because memory was short */
    effect *effects; /* one block, with the members of sets behind them; finish() frees it */
} answer;

typedef struct batch {
    table *table;
    /* Answer the questions: for each group whose series is NOT_FOUND, set the series; for each group whose series is
       SLOW_LINE, fill in the answer. */
    void (*ask)(struct batch *);
    group groups[GROUPS];
    sample samples[SAMPLES];
    answer answers[GROUPS]; /* for the group with the same index, if it is a slow line */
    uint32_t group_count, sample_count, questions;
    uint64_t packets, lines, events, service_checks;
} batch;

/* -- looking up */

/* Each step prefetches the memory that the next one reads: the place of a raw key, its bytes, the series, its aggregate. */
static inline void look_up(batch *b) {
    table *t = b->table;
    for (uint32_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        if (g->series == SLOW_LINE)
            continue;
        g->place = next_place(t, (uint32_t)g->hash, g->hash);
        if (t->raw_keys[g->place].series != NOT_FOUND)
            __builtin_prefetch(t->bytes + t->raw_keys[g->place].at);
    }
    for (uint32_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        if (g->series == SLOW_LINE)
            continue;
        g->series = find_series_from(t, &g->written, g->hash, g->place);
        if (g->series >= 0)
            __builtin_prefetch(&t->series[g->series], 1);
        else if (g->series == NOT_FOUND && (g->series = find_without_room(t, g->hash)) == NOT_FOUND)
            b->questions++;
    }
}

/* -- applying; the mutex is held */

static inline void apply(table *t, int32_t series, const sample *p) {
    if (series >= 0)
        apply_sample(t, (uint32_t)series, p);
    else if (is_adjustment(p))
        return; /* the sample that this corrects was counted */
    else if (series <= REFUSED && series > REFUSED - CAUSES)
        t->account.refused[REFUSED - series]++;
    else
        t->account.no_memory++;
}

static inline void apply_all(batch *b) {
    table *t = b->table;
    for (uint32_t i = 0; i < b->group_count; i++) {
        const group *g = &b->groups[i], *next = g + AHEAD;
        if (i + AHEAD < b->group_count && next->series >= 0 && next->written.kind != COUNTER)
            __builtin_prefetch(t->series[next->series].sketch, 1);
        if (g->series == SLOW_LINE) {
            const answer *found = &b->answers[i];
            t->account.bad += found->bad;
            t->account.no_memory += found->lost;
            for (uint32_t each = 0; each < found->count; each++)
                apply(t, found->effects[each].series, &found->effects[each].sample);
        } else
            for (uint32_t each = 0; each < g->count; each++)
                apply(t, g->series, &b->samples[g->first + each]);
    }
}

/* Aggregate everything that was read, and empty the batch. */
static inline void finish(batch *b) {
    table *t = b->table;
    look_up(b);
    if (b->questions)
        b->ask(b);
    pthread_mutex_lock(&t->mutex);
    apply_all(b);
    t->account.packets += b->packets;
    t->account.lines += b->lines;
    t->account.events += b->events;
    t->account.service_checks += b->service_checks;
    pthread_mutex_unlock(&t->mutex);
    for (uint32_t i = 0; b->questions && i < b->group_count; i++)
        if (b->groups[i].series == SLOW_LINE)
            free(b->answers[i].effects);
    b->group_count = b->sample_count = b->questions = 0;
    b->packets = b->lines = b->events = b->service_checks = 0;
}

/* -- reading */

static inline group *next_group(batch *b, const char *at, const char *end) {
    group *g = &b->groups[b->group_count++];
    g->line = at;
    g->length = (uint32_t)(end - at);
    return g;
}

/* Split a line's samples into groups of one kind. */
static inline void add_groups(batch *b, const line *l, const char *at, const char *end) {
    for (uint32_t i = 0; i < l->count;) {
        group *g = next_group(b, at, end);
        uint8_t kind = l->samples[i].kind;
        g->written = (written){l->key, l->tags, l->key_length, l->tags_length, kind};
        g->first = b->sample_count + i;
        for (g->count = 0; i < l->count && l->samples[i].kind == kind; i++)
            g->count++;
        g->hash = raw_key_hash(b->table, &g->written);
        g->series = NOT_FOUND;
        __builtin_prefetch(&b->table->raw_keys[(uint32_t)g->hash & b->table->mask]);
    }
    b->sample_count += l->count;
}

static inline void add_slow_line(batch *b, const char *at, const char *end) {
    next_group(b, at, end)->series = SLOW_LINE;
    b->answers[b->group_count - 1] = (answer){0};
    b->questions++;
}

/* Read a line into the batch. If it does not fit, finish the batch first; a line that does not fit into an empty batch is
   a slow line. */
static inline enum line_is read_into_batch(batch *b, const char *at, const char *end, line *l) {
    for (;; finish(b)) {
        enum line_is found;
        l->samples = b->samples + b->sample_count;
        l->room = SAMPLES - b->sample_count;
        l->groups_room = GROUPS - b->group_count;
        found = read_line(at, end, b->table->c_locale, l);
        if (found == FULL && !b->group_count)
            return SLOW;
        if (found != FULL && (found != SLOW || l->groups_room))
            return found;
    }
}

/* Read complete lines. The bytes must stay valid until finish(). */
static inline void read_lines(batch *b, const char *at, const char *end) {
    line l;
    for (; at < end; at++) {
        const char *feed = memchr(at, '\n', (size_t)(end - at)), *stop = feed ? feed : end;
        switch (read_into_batch(b, at, stop, &l)) {
        case PLAIN:
            add_groups(b, &l, at, stop);
            break;
        case SLOW:
            add_slow_line(b, at, stop);
            break;
        case EVENT:
            b->events++;
            break;
        case SERVICE_CHECK:
            b->service_checks++;
            break;
        case FULL: /* never */
        case EMPTY:
            b->lines--;
            break;
        }
        b->lines++;
        at = stop;
    }
}

#endif
