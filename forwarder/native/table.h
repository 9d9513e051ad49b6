/* The table of series: maps keys as received to series, and holds the aggregate of each series since its last
   collection. It does not use the interpreter: keys of series are opaque pointers of the caller.

   Raw keys. A raw key is a kind with the bytes of a key and of its tags as they stood in a line; several raw keys may
   mean the same series. The bytes of all raw keys lie in one block. An open-addressing table has a hash and an offset for
   each, so that a look-up touches little memory. The hash is seeded with a random number, so that a sender cannot choose
   keys that collide.

     raw_keys[]  hash, series, at ──> bytes: kind | lengths | key | tags
                         │
                         └──> series[number]: kind, flags, aggregate     keys[number]: the caller's key
                                                                               ▲
     index[]     number, by hash of kind and key ──────────────────────────────┘

   Series. A series is a number: an index into `series` and `keys`. Three parties use the table at the same time:

     the owner      the thread that feeds: looks up raw keys, and applies samples to series
     the collector  moves the aggregates aside, makes objects of them, and frees expired series
     any thread     marks a series as expired

   Two locks protect it:

     `lock`    The interpreter lock, or the caller's substitute. The caller holds it to add a series, to mark one as
               expired, to free one, and to change raw keys. The owner reads raw keys without it; meanwhile, calls that
               change raw keys are refused (by module.c).
     `mutex`   Held for a short time to read or change aggregates.

   The states of a series:

              add_series()                    expire()                    release()
        free ─────────────▶ live ◀──────────────────────▶ expired ─────────────────▶ free
                                    series_of_key(): the
                                    same key came again

   - *live*: raw keys may lead to it, so the owner may hold its number in a batch.
   - *expired*: no raw key leads to it any more. Its last aggregate may not be collected yet. A collector that has moved
     the aggregate aside may still be making objects of it, and needs the key for that.
   - *free*: no raw key, index entry or batch contains its number, and the next add_series() may use it for another key.

   Why expire() does not free the series: the collector makes its objects without `mutex`, so the key could be freed, or
   the number used again, while the collector uses both. So only the collector frees series, at its end: release() frees
   the expired series that have nothing left to collect (`touched` is 0) and that no collector uses (`held` is 0). A
   series that is not ready stays in the list `expired` until the next collection. */

#ifndef FORWARDER_NATIVE_TABLE_H
#define FORWARDER_NATIVE_TABLE_H

#include "parse.h"
#include "sketch.h"
#include <float.h>
#include <pthread.h>

enum {
    NOT_FOUND = -1,
    REFUSED = -2, /* and below: refused for cause number REFUSED - series, */
    NO_ROOM = -3, /* above a cap, for example */
    CAUSES = 8,
    WITHOUT_ROOM = 1 << 15, /* number of remembered hashes of keys that were above a cap */
    LONGEST_RAW_KEY = 1 << 24
};
#define FREE UINT32_MAX

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
    free(set->members);
    free(set->bytes);
    free(set);
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

/* Return the bytes that count for members, as metricslib/budget.py does. */
static inline int64_t member_cost(uint64_t members, uint64_t bytes) { return (int64_t)(192 * members + 2 * bytes); }

/* The share of the memory limit for members of sets, which all tables of a registry use together. */
typedef struct {
    int64_t *used; /* [0] is changed by C, [1] by Python; C uses atomic operations for both */
    int64_t allowed;
} member_share;

static inline int takes_from_share(const member_share *share, int64_t size) {
    int64_t used = __atomic_load_n(&share->used[0], __ATOMIC_RELAXED) + __atomic_load_n(&share->used[1], __ATOMIC_RELAXED);
    if (used + size > share->allowed)
        return 0;
    __atomic_fetch_add(&share->used[0], size, __ATOMIC_RELAXED);
    return 1;
}

/* Add a member, unless the set has `most` others or the share is used up. Return 1 if it is in the set now, 0 if not, and
   -1 if out of memory. */
static inline int member_set_add(member_set *set, const char *bytes, uint32_t length, uint64_t seed, uint32_t most,
                                 const member_share *share) {
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
    if (!takes_from_share(share, member_cost(1, length)))
        return 0;
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
        whole_number whole; /* of a counter, while only whole numbers were added */
        double real;        /* of a counter, after that */
        struct {
            double base, delta;
        } gauge;
        sketch *sketch; /* of a timer or histogram */
        member_set *set;
    };
    uint8_t kind;
    uint8_t touched;   /* it has an aggregate to collect, and its number is in the table's `touched` */
    uint8_t real_kind; /* a counter has a fraction, or a gauge was set */
    uint8_t expired;
    uint8_t listed;   /* its number is in the table's `expired` */
    uint8_t overflow; /* it takes the samples of keys above a cap */
    uint16_t held;    /* number of collectors that use its aggregate, which was moved aside */
} series;

/* The aggregate of a series, moved aside by a collector. */
typedef struct {
    uint32_t number;
    series was;
} taken;

/* The key of a series, which belongs to the caller. NULL if the number is free. */
typedef struct {
    void *key;
    uint64_t hash;
} series_key;

/* -- raw keys */

typedef struct {
    uint32_t hash;
    int32_t series; /* a number, REFUSED or below, or NOT_FOUND if the place is free */
    uint64_t at;    /* offset of its bytes: kind, length of the key, length of the tags, key, tags */
} raw_key;

/* The answer for a key above a cap. The number of such keys is unlimited, so only a hash of 64 bits is remembered, in a
   table of fixed size. It saves a call into Python for each line with one of the latest such keys. */
typedef struct {
    uint64_t hash;
    int32_t series; /* an overflow series, NO_ROOM, or NOT_FOUND if the place is free */
} without_room;

typedef struct {
    uint64_t packets, lines, aggregated, bad, events, service_checks, unique_full, no_memory, refused[CAUSES];
} account;

typedef struct {
    pthread_mutex_t mutex;
    uint64_t seed;
    locale_t c_locale;
    uint32_t exact, most_members, most_raw_keys;
    size_t most_raw_key_bytes;
    member_share members;
    int (*same_key)(const void *, const void *);
    /* raw keys: read by the owner; changed under `lock`, while the owner does not read */
    raw_key *raw_keys;
    uint32_t raw_key_count, mask;
    char *bytes;
    size_t size, room;
    without_room *without_room; /* pairs, at hash % WITHOUT_ROOM; NULL until it is needed */
    /* keys of series, under `lock`: by number; and an open-addressing table of numbers, by kind and key */
    series_key *keys;
    uint32_t *index;
    uint32_t index_mask, index_used;
    /* series, under the mutex; `count` and `series_room` change only under both locks */
    series *series;
    uint32_t count, series_room;
    uint32_t *free_series, free_count;
    uint32_t *touched, touched_count;
    uint32_t *expired, expired_count;
    account account; /* under the mutex */
} table;

/* A key and its tags as they stand in a line. */
typedef struct {
    const char *key, *tags;
    uint32_t key_length, tags_length;
    uint8_t kind;
} written;

static inline uint64_t raw_key_hash(const table *t, const written *w) {
    uint64_t hash = hash_of(w->key, w->key_length, t->seed + w->kind);
    return w->tags_length ? hash_of(w->tags, w->tags_length, hash) : hash;
}

typedef struct {
    uint32_t kind, key_length, tags_length;
} raw_key_head;

static inline int raw_key_is(const table *t, const raw_key *one, const written *w) {
    const char *bytes = t->bytes + one->at;
    raw_key_head head;
    memcpy(&head, bytes, sizeof head);
    bytes += sizeof head;
    return head.kind == w->kind && head.key_length == w->key_length && head.tags_length == w->tags_length &&
           !memcmp(bytes, w->key, w->key_length) && !memcmp(bytes + w->key_length, w->tags, w->tags_length);
}

/* Return the first place from `at` on that is free or has this hash. */
static inline uint32_t next_place(const table *t, uint32_t at, uint64_t hash) {
    for (at &= t->mask; t->raw_keys[at].series != NOT_FOUND && t->raw_keys[at].hash != (uint32_t)(hash >> 32);)
        at = (at + 1) & t->mask;
    return at;
}

/* Return the series of a raw key, the refusal, or NOT_FOUND. `at` is the result of next_place(). */
static inline int32_t find_series_from(const table *t, const written *w, uint64_t hash, uint32_t at) {
    while (t->raw_keys[at].series != NOT_FOUND && !raw_key_is(t, &t->raw_keys[at], w))
        at = next_place(t, at + 1, hash);
    return t->raw_keys[at].series;
}

static inline int32_t find_series(const table *t, const written *w, uint64_t hash) {
    return find_series_from(t, w, hash, next_place(t, (uint32_t)hash, hash));
}

/* Return the remembered answer for a key above a cap, or NOT_FOUND. */
static inline int32_t find_without_room(const table *t, uint64_t hash) {
    const without_room *one = t->without_room ? &t->without_room[hash % WITHOUT_ROOM & ~1u] : NULL;
    if (!one)
        return NOT_FOUND;
    return one[0].hash == hash ? one[0].series : one[1].hash == hash ? one[1].series : NOT_FOUND;
}

/* Remember the answer for a key above a cap. If out of memory, Python is asked again for the key. */
static inline void add_without_room(table *t, uint64_t hash, int32_t series) {
    without_room *two;
    if (!t->without_room) {
        if (!(t->without_room = malloc(WITHOUT_ROOM * sizeof *t->without_room)))
            return;
        for (uint32_t i = 0; i < WITHOUT_ROOM; i++)
            t->without_room[i] = (without_room){0, NOT_FOUND};
    }
    two = &t->without_room[hash % WITHOUT_ROOM & ~1u];
    if (two[0].hash == hash || two[1].hash == hash)
        return;
    two[1] = two[0];
    two[0] = (without_room){hash, series};
}

static inline void place_raw_key(raw_key *raw_keys, uint32_t mask, uint64_t hash, int32_t series, uint64_t at) {
    uint32_t place = (uint32_t)hash & mask;
    while (raw_keys[place].series != NOT_FOUND)
        place = (place + 1) & mask;
    raw_keys[place] = (raw_key){(uint32_t)(hash >> 32), series, at};
}

/* Return true unless the raw key was refused or its series expired. Only the one flag is read, atomically, because a
   collection in another thread may write to the fields beside it. */
static inline int raw_key_stays(const table *t, const raw_key *one) {
    return one->series >= 0 && !__atomic_load_n(&t->series[one->series].expired, __ATOMIC_RELAXED);
}

/* Rebuild the table of raw keys, with room for one more: with all of them, or only those that raw_key_stays() keeps.
   Return -1 if out of memory; then nothing has changed. */
static inline int rebuild_raw_keys(table *t, int all) {
    uint32_t kept = 0, places = 1024;
    raw_key *fresh;
    char *bytes;
    size_t size = 0, room = 64;
    for (uint32_t i = 0; t->raw_keys && i <= t->mask; i++)
        if (t->raw_keys[i].series != NOT_FOUND && (all || raw_key_stays(t, &t->raw_keys[i]))) {
            raw_key_head head;
            memcpy(&head, t->bytes + t->raw_keys[i].at, sizeof head);
            room += sizeof head + head.key_length + head.tags_length;
            kept++;
        }
    while (places < 2 * (kept + 1))
        places *= 2;
    fresh = malloc(places * sizeof *fresh);
    bytes = malloc(room);
    if (!fresh || !bytes) {
        free(fresh);
        free(bytes);
        return -1;
    }
    for (uint32_t i = 0; i < places; i++)
        fresh[i].series = NOT_FOUND;
    for (uint32_t i = 0; t->raw_keys && i <= t->mask; i++) {
        const raw_key *one = &t->raw_keys[i];
        raw_key_head head;
        written w = {0};
        if (one->series == NOT_FOUND || !(all || raw_key_stays(t, one)))
            continue;
        memcpy(&head, t->bytes + one->at, sizeof head);
        w.key = t->bytes + one->at + sizeof head;
        w.tags = w.key + head.key_length;
        w.key_length = head.key_length;
        w.tags_length = head.tags_length;
        w.kind = (uint8_t)head.kind;
        place_raw_key(fresh, places - 1, raw_key_hash(t, &w), one->series, size);
        memcpy(bytes + size, t->bytes + one->at, sizeof head + head.key_length + head.tags_length);
        size += sizeof head + head.key_length + head.tags_length;
    }
    free(t->raw_keys);
    free(t->bytes);
    t->raw_keys = fresh;
    t->mask = places - 1;
    t->raw_key_count = kept;
    t->bytes = bytes;
    t->size = size;
    t->room = room;
    return 0;
}

/* Return the bytes of memory of raw keys with `room` reserved bytes and a table of `places`. */
static inline size_t raw_keys_memory(size_t room, uint64_t places) { return room + places * sizeof(raw_key); }

/* Return the bytes that count against the bound. An empty table and the hashes of keys above a cap do not count, because
   every listener has them whatever its bound. Together they take 528 KiB. */
static inline size_t raw_keys_use(const table *t) {
    return t->raw_key_count ? raw_keys_memory(t->room, (uint64_t)t->mask + 1) : 0;
}

static inline void clear_raw_keys(table *t) {
    t->raw_key_count = 0;
    t->size = 0;
    for (uint32_t i = 0; i <= t->mask; i++)
        t->raw_keys[i].series = NOT_FOUND;
}

/* Return true if this is an overflow series, or the refusal for keys above a cap. */
static inline int is_for_want_of_room(const table *t, int32_t series) {
    return series >= 0 ? __atomic_load_n(&t->series[series].overflow, __ATOMIC_RELAXED) : series == NO_ROOM;
}

/* Return the bytes to reserve for raw keys when `size` more are needed: at least twice as many as now. */
static inline size_t grown_room(const table *t, size_t size) { return t->room + (t->room > size ? t->room : size); }

/* Return true if one more raw key of `size` bytes stays within both bounds: the number of raw keys and their bytes. */
static inline int raw_key_fits(const table *t, size_t size) {
    uint64_t places = (uint64_t)t->mask + 1;
    if (t->raw_key_count >= t->most_raw_keys)
        return 0;
    if (4 * ((uint64_t)t->raw_key_count + 1) > 3 * places)
        places *= 2;
    return raw_keys_memory(t->size + size > t->room ? grown_room(t, size) : t->room, places) <= t->most_raw_key_bytes;
}

/* Add a raw key, which must not be in the table, with its series or refusal. If that would exceed a bound, all others are
   removed first: those in use come back with their next lines. Return -1 if out of memory; then Python is asked again for
   the raw key. */
static inline int add_raw_key(table *t, const written *w, uint64_t hash, int32_t series) {
    raw_key_head head = {w->kind, w->key_length, w->tags_length};
    size_t size = sizeof head + w->key_length + w->tags_length;
    if (is_for_want_of_room(t, series)) {
        add_without_room(t, hash, series);
        return 0;
    }
    if (!raw_key_fits(t, size)) {
        clear_raw_keys(t);
        if (rebuild_raw_keys(t, 1) < 0)
            return -1;
        if (!raw_key_fits(t, size)) /* too large for an empty table: Python is asked each time */
            return 0;
    }
    if (4 * ((uint64_t)t->raw_key_count + 1) > 3 * ((uint64_t)t->mask + 1) && rebuild_raw_keys(t, 1) < 0)
        return -1;
    if (t->size + size > t->room) {
        size_t room = grown_room(t, size);
        char *grown = realloc(t->bytes, room);
        if (!grown)
            return -1;
        t->bytes = grown;
        t->room = room;
    }
    memcpy(t->bytes + t->size, &head, sizeof head);
    memcpy(t->bytes + t->size + sizeof head, w->key, w->key_length);
    memcpy(t->bytes + t->size + sizeof head + w->key_length, w->tags, w->tags_length);
    place_raw_key(t->raw_keys, t->mask, hash, series, t->size);
    t->size += size;
    t->raw_key_count++;
    return 0;
}

/* -- keys of series; `lock` is held */

static inline uint32_t index_place(const table *t, int kind, uint64_t hash) {
    return (uint32_t)((hash + (uint64_t)kind) * 0x9E3779B97F4A7C15ull >> 32) & t->index_mask;
}

/* Return the place in the index of the series with this kind and key, or the free place where it belongs. */
static inline uint32_t find_in_index(const table *t, int kind, const void *key, uint64_t hash) {
    uint32_t at = index_place(t, kind, hash);
    for (; t->index[at] != FREE; at = (at + 1) & t->index_mask) {
        uint32_t number = t->index[at];
        if (t->keys[number].hash == hash && t->series[number].kind == kind && t->same_key(t->keys[number].key, key))
            break;
    }
    return at;
}

static inline int grow_index(table *t, uint32_t places) {
    uint32_t *before = t->index, before_mask = t->index_mask, *grown = malloc(places * sizeof *grown);
    if (!grown)
        return -1;
    memset(grown, 0xFF, places * sizeof *grown);
    t->index = grown;
    t->index_mask = places - 1;
    for (uint32_t i = 0; before && i <= before_mask; i++)
        if (before[i] != FREE) {
            uint32_t number = before[i], at = index_place(t, t->series[number].kind, t->keys[number].hash);
            while (grown[at] != FREE)
                at = (at + 1) & t->index_mask;
            grown[at] = number;
        }
    free(before);
    return 0;
}

/* Remove a series from the index. Later entries of the same probe sequence move up, because a look-up stops at a gap. */
static inline void remove_from_index(table *t, uint32_t number) {
    uint32_t hole = index_place(t, t->series[number].kind, t->keys[number].hash), at, home;
    while (t->index[hole] != number)
        hole = (hole + 1) & t->index_mask;
    for (at = (hole + 1) & t->index_mask; t->index[at] != FREE; at = (at + 1) & t->index_mask) {
        home = index_place(t, t->series[t->index[at]].kind, t->keys[t->index[at]].hash);
        if (((at - home) & t->index_mask) >= ((at - hole) & t->index_mask)) {
            t->index[hole] = t->index[at];
            hole = at;
        }
    }
    t->index[hole] = FREE;
    t->index_used--;
}

/* Return the number of the series with this kind and key, or NOT_FOUND. An expired series becomes live again. */
static inline int32_t series_of_key(table *t, int kind, const void *key, uint64_t hash) {
    uint32_t number = t->index[find_in_index(t, kind, key, hash)];
    if (number == FREE)
        return NOT_FOUND;
    pthread_mutex_lock(&t->mutex);
    t->series[number].expired = 0;
    pthread_mutex_unlock(&t->mutex);
    return (int32_t)number;
}

/* Return true if the number is that of a live or expired series. */
static inline int is_series(const table *t, int64_t number) {
    return number >= 0 && number < t->count && t->keys[number].key;
}

static inline int grow_numbers(uint32_t **numbers, uint32_t room) {
    uint32_t *grown = realloc(*numbers, room * sizeof *grown);
    if (!grown)
        return -1;
    *numbers = grown;
    return 0;
}

/* Make room for one more series. The mutex is held. Return -1 if out of memory; arrays that have grown stay larger than
   `series_room`, which is harmless. */
static inline int grow_series(table *t) {
    uint32_t room = t->series_room ? 2 * t->series_room : 256;
    series *grown;
    series_key *keys;
    if (room > INT32_MAX)
        return -1;
    if (!(grown = realloc(t->series, room * sizeof *grown)))
        return -1;
    t->series = grown;
    if (!(keys = realloc(t->keys, room * sizeof *keys)))
        return -1;
    t->keys = keys;
    if (grow_numbers(&t->touched, room) < 0 || grow_numbers(&t->free_series, room) < 0 ||
        grow_numbers(&t->expired, room) < 0)
        return -1;
    t->series_room = room;
    return 0;
}

/* Return the number of a new series, or -1 if out of memory. There must be no series with this kind and key. The key
   belongs to the table until release() returns it. */
static inline int32_t add_series(table *t, int kind, void *key, uint64_t hash, int overflow) {
    uint32_t number;
    int failed = 0;
    if (2 * ((uint64_t)t->index_used + 1) > (uint64_t)t->index_mask + 1 && grow_index(t, 2 * (t->index_mask + 1)) < 0)
        return -1;
    pthread_mutex_lock(&t->mutex);
    if (t->free_count)
        number = t->free_series[--t->free_count];
    else if (!(failed = t->count == t->series_room && grow_series(t) < 0))
        number = t->count++;
    if (!failed) {
        memset(&t->series[number], 0, sizeof t->series[number]);
        t->series[number].kind = (uint8_t)kind;
        t->series[number].overflow = overflow != 0;
        t->keys[number] = (series_key){key, hash};
    }
    pthread_mutex_unlock(&t->mutex);
    if (failed)
        return -1;
    t->index[find_in_index(t, kind, key, hash)] = number;
    t->index_used++;
    return (int32_t)number;
}

/* Mark the series with this kind and key as expired, if it exists. forget_raw_keys() must be called before the owner
   continues. */
static inline void expire(table *t, int kind, const void *key, uint64_t hash) {
    uint32_t number = t->index[find_in_index(t, kind, key, hash)];
    if (number == FREE)
        return;
    pthread_mutex_lock(&t->mutex);
    t->series[number].expired = 1;
    if (!t->series[number].listed) {
        t->series[number].listed = 1;
        t->expired[t->expired_count++] = number;
    }
    pthread_mutex_unlock(&t->mutex);
}

/* Remove the raw keys of expired series, and refusals, whose answer may be different by now. If out of memory for a new
   table, remove all. */
static inline void forget_raw_keys(table *t) {
    free(t->without_room);
    t->without_room = NULL;
    if (rebuild_raw_keys(t, 0) < 0)
        clear_raw_keys(t);
}

/* -- the effect of a sample on its series; the mutex is held */

static inline double within_range(double number) {
    return number > DBL_MAX ? DBL_MAX : number < -DBL_MAX ? -DBL_MAX : number;
}

static inline void count_sample(series *s, double amount) {
    /* Below 2^53 a double holds every whole number exactly, and whole_number adds them exactly in any order. */
    int whole = amount > -0x1p53 && amount < 0x1p53 && (double)(int64_t)amount == amount;
    if (!s->real_kind && whole)
        s->whole += (int64_t)amount;
    else {
        s->real = within_range((s->real_kind ? s->real : (double)s->whole) + amount);
        s->real_kind = 1;
    }
}

static inline void change_gauge(series *s, const sample *p) {
    if (!p->relative) {
        s->gauge.base = p->value;
        s->real_kind = 1;
    } else if (s->real_kind)
        s->gauge.base = within_range(s->gauge.base + p->value);
    else
        s->gauge.delta = within_range(s->gauge.delta + p->value);
}

/* Add a sample to the distribution of a timer or histogram. Return -1 if out of memory. */
static inline int add_to_sketch(const table *t, series *s, const sample *p) {
    if (!s->sketch) {
        if (!(s->sketch = malloc(sizeof *s->sketch)))
            return -1;
        sketch_init(s->sketch, t->exact);
    }
    return sketch_stage(s->sketch, p->value, p->weight);
}

/* Add a member to a set. Return 0 if the set is full, and -1 if out of memory. */
static inline int add_to_set(const table *t, series *s, const sample *p) {
    if (!s->set && !(s->set = calloc(1, sizeof *s->set)))
        return -1;
    return member_set_add(s->set, p->member, p->length, t->seed, t->most_members, &t->members);
}

/* Aggregate one sample in series `number`, which is of the same kind, or count the cause why it was dropped. */
static inline void apply_sample(table *t, uint32_t number, const sample *p) {
    series *s = &t->series[number];
    int done = 1;
    if (is_adjustment(p)) { /* if out of memory, the sums stay as estimated from the buckets */
        if (s->sketch)
            (void)sketch_adjust(s->sketch, p->value, p->weight);
        return;
    }
    switch (s->kind) {
    case COUNTER:
        count_sample(s, p->value * p->weight);
        break;
    case GAUGE:
        change_gauge(s, p);
        break;
    case UNIQUE:
        done = add_to_set(t, s, p);
        break;
    default:
        done = add_to_sketch(t, s, p) < 0 ? -1 : 1;
    }
    if (done > 0)
        t->account.aggregated++;
    else if (!done)
        t->account.unique_full++;
    else
        t->account.no_memory++;
    if (!s->touched) {
        s->touched = 1;
        t->touched[t->touched_count++] = number;
    }
}

/* -- collecting */

/* Move the aggregates of all touched series aside, and copy the account that covers them. Return their number; the caller
   ends with let_go() and free(). If out of memory, `*all` is NULL and nothing was moved. Takes the mutex; does not need
   `lock`. */
static inline uint32_t take_touched(table *t, taken **all, account *sofar) {
    uint32_t count = 0;
    pthread_mutex_lock(&t->mutex);
    *sofar = t->account;
    if ((*all = malloc(((size_t)t->touched_count + 1) * sizeof **all))) {
        for (count = 0; count < t->touched_count; count++) {
            uint32_t number = t->touched[count];
            series *s = &t->series[number];
            if (count + 8 < t->touched_count)
                __builtin_prefetch(&t->series[t->touched[count + 8]], 1);
            (*all)[count] = (taken){number, *s};
            s->whole = 0;
            s->touched = s->real_kind = 0;
            s->held++;
        }
        t->touched_count = 0;
    }
    pthread_mutex_unlock(&t->mutex);
    return count;
}

static inline void free_value(const table *t, series *s) {
    if (s->kind == UNIQUE && s->set) {
        __atomic_fetch_sub(&t->members.used[0], member_cost(s->set->used, s->set->size), __ATOMIC_RELAXED);
        member_set_free(s->set);
    } else if ((s->kind == TIMER || s->kind == HISTOGRAM) && s->sketch) {
        sketch_free(s->sketch);
        free(s->sketch);
    }
}

/* Free aggregates that were moved aside, so that their series may be freed. `lock` is held. */
static inline void let_go(table *t, taken *all, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        free_value(t, &all[i].was);
    pthread_mutex_lock(&t->mutex);
    for (uint32_t i = 0; i < count; i++)
        t->series[all[i].number].held--;
    pthread_mutex_unlock(&t->mutex);
}

/* Free one expired series that has nothing left to collect. Return its key, which belongs to the caller again, or NULL if
   there is none. `lock` is held. `*at` is 0 at the first call, and then the place where the search continues. */
static inline void *release(table *t, uint32_t *at) {
    void *key = NULL;
    pthread_mutex_lock(&t->mutex);
    while (!key && *at < t->expired_count) {
        uint32_t number = t->expired[*at];
        series *s = &t->series[number];
        if (s->expired && (s->touched || s->held)) { /* not yet */
            ++*at;
            continue;
        }
        t->expired[*at] = t->expired[--t->expired_count];
        s->listed = 0;
        if (!s->expired) /* its key came again */
            continue;
        remove_from_index(t, number);
        key = t->keys[number].key;
        t->keys[number].key = NULL;
        t->free_series[t->free_count++] = number;
    }
    pthread_mutex_unlock(&t->mutex);
    return key;
}

/* -- the whole table */

/* Return -1 if out of memory; the caller must call table_free() all the same. All fields except the options must be zero
   before. */
static inline int table_init(table *t) {
    pthread_mutex_init(&t->mutex, NULL);
    t->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return t->c_locale && rebuild_raw_keys(t, 0) == 0 && grow_index(t, 1024) == 0 ? 0 : -1;
}

/* Free everything except the keys: the caller frees those that are not NULL first. */
static inline void table_free(table *t) {
    for (uint32_t i = 0; i < t->count; i++)
        if (t->keys[i].key)
            free_value(t, &t->series[i]);
    if (t->c_locale)
        freelocale(t->c_locale);
    pthread_mutex_destroy(&t->mutex);
    free(t->series);
    free(t->keys);
    free(t->index);
    free(t->free_series);
    free(t->touched);
    free(t->expired);
    free(t->raw_keys);
    free(t->bytes);
    free(t->without_room);
}

#endif
