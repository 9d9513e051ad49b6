/* Which series a key on the wire means, and what each series has added up since it was last asked. No interpreter.

   A spelling is a kind with the bytes of a key and its tags as they were written; several may mean one series. The bytes
   of all spellings lie in one block, and the table has a hash and a place for each, so that a look-up touches little
   memory. The hash begins with a random number, so that nobody can choose keys that collide.

   One thread, the owner, looks up and adds. What series have added up is changed by it, and moved aside by a collection
   in another thread, both with the mutex held. */

#ifndef FORWARDER_TABLE_H
#define FORWARDER_TABLE_H

#include "_parse.h"
#include "sketch.h"
#include <float.h>
#include <pthread.h>

enum { NOT_FOUND = -1, REFUSED = -2 /* and below: refused for cause number REFUSED - series */ };

/* -- sets */

typedef struct {
    uint32_t hash, length;
    uint64_t at;
} member;

typedef struct {
    uint32_t used, mask; /* places - 1 */
    member *members;     /* a place without one has the length UINT32_MAX */
    char *bytes;
    size_t size, room;
} member_set;

static inline uint64_t mixed(uint64_t one, uint64_t other) {
    __extension__ unsigned __int128 product = (unsigned __int128)one * other;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_of(const char *bytes, uint32_t length, uint64_t seed) {
    uint64_t hash = seed ^ length, word;
    for (; length >= 8; length -= 8, bytes += 8) {
        memcpy(&word, bytes, 8);
        hash = mixed(hash ^ word, 0x9E3779B97F4A7C15ull);
    }
    if (length >= 4) { /* the last up to seven bytes, some of them twice */
        uint32_t first, last;
        memcpy(&first, bytes, 4);
        memcpy(&last, bytes + length - 4, 4);
        word = (uint64_t)first << 32 | last;
    } else
        word = !length ? 0
                       : (uint64_t)(unsigned char)bytes[0] << 16 | (uint64_t)(unsigned char)bytes[length / 2] << 8 |
                             (unsigned char)bytes[length - 1];
    return mixed(hash ^ word, 0xD6E8FEB86659FD93ull ^ seed);
}

static inline void member_set_free(member_set *set) {
    if (set) {
        free(set->members);
        free(set->bytes);
        free(set);
    }
}

static inline int member_set_grow(member_set *set) {
    uint32_t places = set->members ? 2 * (set->mask + 1) : 8;
    member *grown = malloc(places * sizeof *grown);
    if (!grown)
        return -1;
    for (uint32_t i = 0; i < places; i++)
        grown[i].length = UINT32_MAX;
    for (uint32_t i = 0; set->members && i <= set->mask; i++)
        if (set->members[i].length != UINT32_MAX) {
            uint32_t at = set->members[i].hash & (places - 1);
            while (grown[at].length != UINT32_MAX)
                at = (at + 1) & (places - 1);
            grown[at] = set->members[i];
        }
    free(set->members);
    set->members = grown;
    set->mask = places - 1;
    return 0;
}

/* Add a member, unless there are `most` others; return whether it is in the set, and -1 without memory. */
static inline int member_set_add(member_set *set, const char *bytes, uint32_t length, uint64_t seed, uint32_t most) {
    uint32_t hash = (uint32_t)hash_of(bytes, length, seed), at;
    if ((!set->members || 4 * (set->used + 1) > 3 * (set->mask + 1)) && member_set_grow(set) < 0)
        return -1;
    for (at = hash & set->mask; set->members[at].length != UINT32_MAX; at = (at + 1) & set->mask)
        if (set->members[at].hash == hash && set->members[at].length == length &&
            !memcmp(set->bytes + set->members[at].at, bytes, length))
            return 1;
    if (set->used >= most)
        return 0;
    if (set->size + length > set->room) {
        size_t room = 2 * set->room + length + 64;
        char *grown = realloc(set->bytes, room);
        if (!grown)
            return -1;
        set->bytes = grown;
        set->room = room;
    }
    memcpy(set->bytes + set->size, bytes, length);
    set->members[at] = (member){hash, length, set->size};
    set->size += length;
    set->used++;
    return 1;
}

/* -- series */

__extension__ typedef __int128 whole_number;

typedef struct {
    union {
        whole_number whole; /* a counter's, while only whole numbers were added */
        double real;        /* a counter's */
        struct {
            double base, delta;
        } gauge;
        sketch *sketch; /* a timer's or histogram's */
        member_set *set;
    };
    uint8_t kind;
    uint8_t touched; /* something happened since the last collection */
    uint8_t real_kind; /* a counter has a fraction, a gauge was set */
    uint8_t dying;   /* nobody finds it any more; it is freed once it is collected */
    uint8_t overflow; /* it takes what found no room */
} series;

typedef struct {
    uint32_t series;
    series was;
} taken;

/* -- spellings */

typedef struct {
    uint32_t hash;
    int32_t series; /* or why there is none; NOT_FOUND: the place is free */
    uint64_t at;    /* of the bytes: kind, length of the key, key, tags */
} spelling;

typedef struct {
    pthread_mutex_t mutex;
    uint64_t seed;
    locale_t c_locale;
    uint32_t exact, most_members;
    /* spellings; the owner's alone */
    spelling *spellings;
    uint32_t spelled, mask;
    char *bytes;
    size_t size, room;
    /* series, under the mutex, but for their number and kinds */
    series *series;
    uint32_t count, series_room;
    uint32_t *free_series;
    uint32_t free_count;
    uint32_t *touched;
    uint32_t touched_count;
    /* the account, under the mutex */
    uint64_t packets, lines, aggregated, unique_full, no_memory, events, service_checks, refused[8];
} table;

typedef struct {
    const char *key, *tags;
    uint32_t key_length, tags_length;
    uint8_t kind;
} written;

static inline uint64_t spelling_hash(const table *t, const written *w) {
    uint64_t hash = hash_of(w->key, w->key_length, t->seed + w->kind);
    return w->tags_length ? hash_of(w->tags, w->tags_length, hash) : hash;
}

typedef struct {
    uint32_t kind, key_length, tags_length;
} spelled;

static inline int spelled_as(const table *t, const spelling *one, const written *w) {
    const char *bytes = t->bytes + one->at;
    spelled head;
    memcpy(&head, bytes, sizeof head);
    bytes += sizeof head;
    return head.kind == w->kind && head.key_length == w->key_length && head.tags_length == w->tags_length &&
           !memcmp(bytes, w->key, w->key_length) && !memcmp(bytes + w->key_length, w->tags, w->tags_length);
}

/* Return the first place from `at` on that is free or has this hash. */
static inline uint32_t next_place(const table *t, uint32_t at, uint64_t hash) {
    for (at &= t->mask; t->spellings[at].series != NOT_FOUND && t->spellings[at].hash != (uint32_t)(hash >> 32);)
        at = (at + 1) & t->mask;
    return at;
}

/* Return the series that is meant, why there is none, or NOT_FOUND; `at` is what next_place() returned. */
static inline int32_t find_series(const table *t, const written *w, uint64_t hash, uint32_t at) {
    while (t->spellings[at].series != NOT_FOUND && !spelled_as(t, &t->spellings[at], w))
        at = next_place(t, at + 1, hash);
    return t->spellings[at].series;
}

static inline void place_spelling(spelling *spellings, uint32_t mask, uint64_t hash, int32_t series, uint64_t at) {
    uint32_t place = (uint32_t)hash & mask;
    while (spellings[place].series != NOT_FOUND)
        place = (place + 1) & mask;
    spellings[place] = (spelling){(uint32_t)(hash >> 32), series, at};
}

/* Remember only spellings whose series `keeps` says so (NULL: all), in a table with room for one more. */
static inline int rebuild_spellings(table *t, int (*keeps)(const table *, int32_t)) {
    uint32_t kept = 0, places = 1024;
    spelling *fresh;
    char *bytes;
    size_t size = 0, room = 64;
    for (uint32_t i = 0; t->spellings && i <= t->mask; i++)
        if (t->spellings[i].series != NOT_FOUND && (!keeps || keeps(t, t->spellings[i].series))) {
            spelled head;
            memcpy(&head, t->bytes + t->spellings[i].at, sizeof head);
            room += sizeof head + head.key_length + head.tags_length;
            kept++;
        }
    while (places < 2 * (kept + 1))
        places *= 2;
    room += room / 2;
    fresh = malloc(places * sizeof *fresh);
    bytes = malloc(room);
    if (!fresh || !bytes) {
        free(fresh);
        free(bytes);
        return -1;
    }
    for (uint32_t i = 0; i < places; i++)
        fresh[i].series = NOT_FOUND;
    for (uint32_t i = 0; t->spellings && i <= t->mask; i++) {
        const spelling *one = &t->spellings[i];
        spelled head;
        written as = {0};
        if (one->series == NOT_FOUND || (keeps && !keeps(t, one->series)))
            continue;
        memcpy(&head, t->bytes + one->at, sizeof head);
        as.key = t->bytes + one->at + sizeof head;
        as.tags = as.key + head.key_length;
        as.key_length = head.key_length;
        as.tags_length = head.tags_length;
        as.kind = (uint8_t)head.kind;
        place_spelling(fresh, places - 1, spelling_hash(t, &as), one->series, size);
        memcpy(bytes + size, t->bytes + one->at, sizeof head + head.key_length + head.tags_length);
        size += sizeof head + head.key_length + head.tags_length;
    }
    free(t->spellings);
    free(t->bytes);
    t->spellings = fresh;
    t->mask = places - 1;
    t->spelled = kept;
    t->bytes = bytes;
    t->size = size;
    t->room = room;
    return 0;
}

static inline int add_spelling(table *t, const written *l, uint64_t hash, int32_t series) {
    spelled head = {l->kind, l->key_length, l->tags_length};
    size_t size = sizeof head + l->key_length + l->tags_length;
    if (4 * (t->spelled + 1) > 3 * (t->mask + 1) && rebuild_spellings(t, NULL) < 0)
        return -1;
    if (t->size + size > t->room) {
        size_t room = 2 * t->room + size;
        char *grown = realloc(t->bytes, room);
        if (!grown)
            return -1;
        t->bytes = grown;
        t->room = room;
    }
    memcpy(t->bytes + t->size, &head, sizeof head);
    memcpy(t->bytes + t->size + sizeof head, l->key, l->key_length);
    memcpy(t->bytes + t->size + sizeof head + l->key_length, l->tags, l->tags_length);
    place_spelling(t->spellings, t->mask, hash, series, t->size);
    t->size += size;
    t->spelled++;
    return 0;
}

/* Return the number of a new series, and -1 without memory. The mutex is held. */
static inline int32_t add_series(table *t, enum kind kind) {
    uint32_t number;
    if (t->free_count)
        number = t->free_series[--t->free_count];
    else {
        if (t->count == t->series_room) {
            uint32_t room = t->series_room ? 2 * t->series_room : 256;
            series *grown = realloc(t->series, room * sizeof *grown);
            uint32_t *touched, *freed;
            if (!grown)
                return -1;
            t->series = grown;
            if (!(touched = realloc(t->touched, room * sizeof *touched)))
                return -1;
            t->touched = touched;
            if (!(freed = realloc(t->free_series, room * sizeof *freed)))
                return -1;
            t->free_series = freed;
            t->series_room = room;
        }
        number = t->count++;
    }
    memset(&t->series[number], 0, sizeof t->series[number]);
    t->series[number].kind = (uint8_t)kind;
    return (int32_t)number;
}

/* -- what a piece does to its series; the mutex is held */

static inline double within_range(double number) {
    return number > DBL_MAX ? DBL_MAX : number < -DBL_MAX ? -DBL_MAX : number;
}

static inline void count_piece(series *s, double amount) {
    /* A whole number that is one for certain; sums of these are exact in any order. */
    int whole = amount > -0x1p53 && amount < 0x1p53 && (double)(int64_t)amount == amount;
    if (!s->real_kind && whole)
        s->whole += (int64_t)amount;
    else {
        s->real = within_range((s->real_kind ? s->real : (double)s->whole) + amount);
        s->real_kind = 1;
    }
}

static inline void change_gauge(series *s, const piece *p) {
    if (!p->relative) {
        s->gauge.base = p->value;
        s->real_kind = 1;
    } else if (s->real_kind)
        s->gauge.base = within_range(s->gauge.base + p->value);
    else
        s->gauge.delta = within_range(s->gauge.delta + p->value);
}

/* Let the piece have its effect on series number `number`, or say why it has none. */
static inline void apply_piece(table *t, uint32_t number, const piece *p) {
    series *s = &t->series[number];
    int done = 1;
    switch (s->kind) {
    case COUNTER:
        count_piece(s, p->value * p->weight);
        break;
    case GAUGE:
        change_gauge(s, p);
        break;
    case UNIQUE:
        if (!s->set && !(s->set = calloc(1, sizeof *s->set)))
            done = -1;
        else if (!(done = member_set_add(s->set, p->member, p->length, t->seed, t->most_members)))
            t->unique_full++;
        break;
    default:
        if (!s->sketch) {
            if (!(s->sketch = malloc(sizeof *s->sketch))) {
                done = -1;
                break;
            }
            sketch_init(s->sketch, t->exact);
        }
        done = sketch_add(s->sketch, p->value, p->weight) < 0 ? -1 : 1;
    }
    if (done < 0)
        t->no_memory++;
    else
        t->aggregated += (uint64_t)done;
    if (!s->touched) {
        s->touched = 1;
        t->touched[t->touched_count++] = number;
    }
}

/* Move what happened to series since the last time into `into`, which has room for `touched_count`. */
static inline uint32_t take_touched(table *t, taken *into) {
    uint32_t count = t->touched_count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = t->touched[i];
        series *s = &t->series[number];
        if (i + 8 < count)
            __builtin_prefetch(&t->series[t->touched[i + 8]], 1);
        into[i].series = number;
        into[i].was = *s;
        s->whole = 0;
        s->touched = s->real_kind = 0;
    }
    t->touched_count = 0;
    return count;
}

static inline void free_value(series *s) {
    if (s->kind == UNIQUE)
        member_set_free(s->set);
    else if ((s->kind == TIMER || s->kind == HISTOGRAM) && s->sketch) {
        sketch_free(s->sketch);
        free(s->sketch);
    }
}

#endif
