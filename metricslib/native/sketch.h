/* A distribution: exact samples while there are few, then a log-linear sketch.

   Samples in sketch.py is the specification: the same operations in the same order, so that every sum is the same to the
   last bit. The code does not use the interpreter. One thread at a time writes. If out of memory, a function returns -1 and
   leaves the sketch unchanged.

   The cost of adding to a bucket is its cache miss: each series has a table of a few KB, and with hundreds of series it is
   rarely in the cache. So there are two ways to add. sketch_add() adds at once. sketch_stage() appends the sample to a
   block of 64, which touches a new cache line only for every eighth sample. A full block is scattered: the places of all
   its samples are computed and prefetched first, so that the cache misses overlap.

       samples  | 12.5 | 3.1 | 12.7 |  ...  |      n of them, all of one weight; once there are buckets, this is the block
                    \     |      /
       buckets  |  .  | . | . |  .  |  .  |  .  |  .  |

   Samples are added in order: the block is scattered before another way to add or a read, and its sums run sample by
   sample. When a block begins, the table gets room for as many buckets as the block has samples, so that scattering cannot
   fail. A caller of sketch_stage() must call sketch_settle() or sketch_freeze() before it reads. */

#ifndef METRICSLIB_SKETCH_H
#define METRICSLIB_SKETCH_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SKETCH_SUB_BUCKETS 64
#define SKETCH_MIN_POWER (-40)
#define SKETCH_MAX_POWER 40
#define SKETCH_MAX_KEY ((SKETCH_MAX_POWER - SKETCH_MIN_POWER) * SKETCH_SUB_BUCKETS + 1)
#define SKETCH_NO_KEY INT16_MIN
#define SKETCH_BLOCK 64 /* maximum number of staged samples */
#define SKETCH_MAX_LIMIT INT32_MAX /* maximum number of samples that are kept exactly */

/* Buckets by key, in an open-addressing table. */
typedef struct {
    uint32_t used;
    uint32_t mask; /* number of places, a power of two, minus 1 */
    int16_t *keys; /* in the same block of memory, after the weights */
    double weights[];
} sketch_buckets;

typedef struct sketch {
    double *samples;         /* n samples: all of them while exact, or the staged ones in a sketch */
    sketch_buckets *buckets; /* NULL while exact */
    uint32_t n, room, limit;
    int unit_known;   /* true if `unit` is valid: the sketch has a sample */
    double *weights;  /* of the samples; NULL: all 1 */
    double in_block;  /* the weight of each sample in the block */
    double count, sum, sum_squares, min, max;
    double unit; /* the common weight of all samples of a sketch; 0: weights differ */
} sketch;

static inline void sketch_init(sketch *s, uint32_t limit) {
    memset(s, 0, sizeof *s);
    s->limit = limit;
    s->min = INFINITY;
    s->max = -INFINITY;
}

static inline void sketch_free(sketch *s) {
    free(s->samples);
    free(s->weights);
    free(s->buckets);
    sketch_init(s, s->limit);
}

/* -- buckets */

static inline int sketch_key(double value) {
    double magnitude = fabs(value);
    uint64_t bits;
    int key;
    if (magnitude <= 0x1p-40)
        key = magnitude != 0;
    else if (!(magnitude < 0x1p40)) /* negated, so that NaN also gets a bucket */
        key = SKETCH_MAX_KEY;
    else {
        memcpy(&bits, &magnitude, sizeof bits);
        /* Subtracting 1 from the bits makes the upper bounds inclusive. */
        key = (int)((bits - 1) >> 46) - ((1023 + SKETCH_MIN_POWER) * SKETCH_SUB_BUCKETS - 2);
    }
    return value < 0 ? -key : key;
}

static inline size_t sketch_buckets_bytes(uint32_t places) {
    return sizeof(sketch_buckets) + places * (sizeof(double) + sizeof(int16_t));
}

static inline sketch_buckets *sketch_buckets_new(uint32_t places) {
    sketch_buckets *buckets = malloc(sketch_buckets_bytes(places));
    if (!buckets)
        return NULL;
    buckets->keys = (int16_t *)(buckets->weights + places);
    for (uint32_t i = 0; i < places; i++)
        buckets->keys[i] = SKETCH_NO_KEY;
    buckets->used = 0;
    buckets->mask = places - 1;
    return buckets;
}

static inline uint32_t sketch_first(const sketch_buckets *buckets, int key) {
    return ((uint32_t)key * 0x9E3779B1u >> 16) & buckets->mask;
}

static inline uint32_t sketch_place(const sketch_buckets *buckets, int key) {
    uint32_t at = sketch_first(buckets, key);
    while (buckets->keys[at] != key && buckets->keys[at] != SKETCH_NO_KEY)
        at = (at + 1) & buckets->mask;
    return at;
}

/* Add to a bucket. There must be room for one more. */
static inline void sketch_count(sketch_buckets *buckets, int key, double weight) {
    uint32_t at = sketch_place(buckets, key);
    if (buckets->keys[at] == key)
        buckets->weights[at] += weight;
    else {
        buckets->keys[at] = (int16_t)key;
        buckets->weights[at] = weight;
        buckets->used++;
    }
}

static inline sketch_buckets *sketch_buckets_copy(const sketch_buckets *from, uint32_t places) {
    sketch_buckets *copy = sketch_buckets_new(places);
    if (copy && places == from->mask + 1) {
        memcpy(copy, from, sketch_buckets_bytes(places));
        copy->keys = (int16_t *)(copy->weights + places);
        return copy;
    }
    for (uint32_t i = 0; copy && i <= from->mask; i++)
        if (from->keys[i] != SKETCH_NO_KEY)
            sketch_count(copy, from->keys[i], from->weights[i]);
    return copy;
}

/* Make room for `more` buckets. A quarter of the places stays free. */
static inline int sketch_reserve(sketch *s, uint32_t more) {
    sketch_buckets *grown, *buckets = s->buckets;
    uint32_t places = buckets->mask + 1;
    while (4 * (buckets->used + more) > 3 * places)
        places *= 2;
    if (places == buckets->mask + 1)
        return 0;
    grown = sketch_buckets_copy(buckets, places);
    if (!grown)
        return -1;
    free(buckets);
    s->buckets = grown;
    return 0;
}

/* -- writing */

/* Update the sums and extremes for a sample. */
static inline void sketch_sum(sketch *s, double value, double weight) {
    s->count += weight;
    s->sum += value * weight;
    s->sum_squares += value * value * weight;
    if (value < s->min)
        s->min = value;
    if (value > s->max)
        s->max = value;
    if (!s->unit_known) {
        s->unit_known = 1;
        s->unit = weight;
    } else if (s->unit != weight)
        s->unit = 0;
}

static inline void sketch_settle(sketch *s) {
    sketch_buckets *buckets = s->buckets;
    int16_t keys[SKETCH_BLOCK];
    if (!buckets || !s->n)
        return;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t at;
        keys[i] = (int16_t)sketch_key(s->samples[i]);
        at = sketch_first(buckets, keys[i]);
        __builtin_prefetch(&buckets->keys[at], 1);
        __builtin_prefetch(&buckets->weights[at], 1);
        sketch_sum(s, s->samples[i], s->in_block);
    }
    for (uint32_t i = 0; i < s->n; i++)
        sketch_count(buckets, keys[i], s->in_block);
    s->n = 0;
}

static inline int sketch_add_to_buckets(sketch *s, double value, double weight) {
    int key = sketch_key(value);
    uint32_t at;
    sketch_settle(s);
    at = sketch_place(s->buckets, key);
    if (s->buckets->keys[at] == key)
        s->buckets->weights[at] += weight;
    else {
        if (sketch_reserve(s, 1) < 0)
            return -1;
        sketch_count(s->buckets, key, weight);
    }
    sketch_sum(s, value, weight);
    return 0;
}

static inline int sketch_become_buckets(sketch *s) {
    sketch into;
    if (s->buckets)
        return 0;
    sketch_init(&into, s->limit);
    into.buckets = sketch_buckets_new(64);
    if (!into.buckets)
        return -1;
    for (uint32_t i = 0; i < s->n; i++)
        if (sketch_add_to_buckets(&into, s->samples[i], s->weights ? s->weights[i] : 1) < 0) {
            sketch_free(&into);
            return -1;
        }
    sketch_free(s);
    *s = into;
    return 0;
}

static inline int sketch_grow(sketch *s) {
    uint32_t room = s->room ? 2 * s->room : 4;
    double *grown;
    if (s->weights) {
        if (!(grown = realloc(s->weights, room * sizeof(double))))
            return -1;
        s->weights = grown;
    }
    if (!(grown = realloc(s->samples, room * sizeof(double))))
        return -1;
    s->samples = grown;
    s->room = room;
    return 0;
}

static inline int sketch_weigh(sketch *s) {
    if (s->weights)
        return 0;
    if (!(s->weights = malloc((s->room ? s->room : 1) * sizeof(double))))
        return -1;
    for (uint32_t i = 0; i < s->n; i++)
        s->weights[i] = 1;
    return 0;
}

/* Add a finite sample, which counts `weight` times. */
static inline int sketch_add(sketch *s, double value, double weight) {
    if (s->buckets)
        return sketch_add_to_buckets(s, value, weight);
    if (s->n >= s->limit) {
        if (sketch_become_buckets(s) < 0)
            return -1;
        return sketch_add_to_buckets(s, value, weight);
    }
    if (s->n == s->room && sketch_grow(s) < 0)
        return -1;
    if (weight != 1 && sketch_weigh(s) < 0)
        return -1;
    if (s->weights)
        s->weights[s->n] = weight;
    s->samples[s->n++] = value;
    return 0;
}

/* Like sketch_add(), for many series in turn: see above. */
static inline int sketch_stage(sketch *s, double value, double weight) {
    if (!s->buckets)
        return sketch_add(s, value, weight);
    if (s->n == SKETCH_BLOCK || (s->n && s->in_block != weight))
        sketch_settle(s);
    if (!s->n) {
        if (!s->samples) {
            if (!(s->samples = malloc(SKETCH_BLOCK * sizeof *s->samples)))
                return -1;
            s->room = SKETCH_BLOCK;
        }
        if (sketch_reserve(s, SKETCH_BLOCK) < 0)
            return -1;
        s->in_block = weight;
    }
    s->samples[s->n++] = value;
    return 0;
}

/* Correct the sums of samples that represent buckets. This converts the distribution to a sketch. */
static inline int sketch_adjust(sketch *s, double sum, double sum_squares) {
    sketch_settle(s);
    if (sketch_become_buckets(s) < 0)
        return -1;
    s->sum += sum;
    s->sum_squares += sum_squares;
    return 0;
}

/* Write a copy of `from` to `to`. If out of memory, `to` is empty. */
static inline int sketch_copy(sketch *to, const sketch *from) {
    *to = *from;
    to->samples = to->weights = NULL;
    to->buckets = NULL;
    if (from->buckets && !(to->buckets = sketch_buckets_copy(from->buckets, from->buckets->mask + 1)))
        goto fail;
    if (from->samples) {
        if (!(to->samples = malloc(from->room * sizeof(double))))
            goto fail;
        memcpy(to->samples, from->samples, from->n * sizeof(double));
    }
    if (from->weights) {
        if (!(to->weights = malloc(from->room * sizeof(double))))
            goto fail;
        memcpy(to->weights, from->weights, from->n * sizeof(double));
    }
    return 0;
fail:
    sketch_free(to);
    return -1;
}

/* Add all of `other`, which must not be `s` and must have no staged samples. If out of memory, a part may have been
   added. */
static inline int sketch_merge(sketch *s, const sketch *other) {
    sketch_settle(s);
    if (!other->buckets) {
        for (uint32_t i = 0; i < other->n; i++)
            if (sketch_add(s, other->samples[i], other->weights ? other->weights[i] : 1) < 0)
                return -1;
        return 0;
    }
    if (sketch_become_buckets(s) < 0)
        return -1;
    for (uint32_t i = 0; i <= other->buckets->mask; i++)
        if (other->buckets->keys[i] != SKETCH_NO_KEY) {
            if (sketch_reserve(s, 1) < 0)
                return -1;
            sketch_count(s->buckets, other->buckets->keys[i], other->buckets->weights[i]);
        }
    s->count += other->count;
    s->sum += other->sum;
    s->sum_squares += other->sum_squares;
    if (other->min < s->min)
        s->min = other->min;
    if (other->max > s->max)
        s->max = other->max;
    if (!s->unit_known) {
        s->unit_known = other->unit_known;
        s->unit = other->unit;
    } else if (other->unit_known && s->unit != other->unit)
        s->unit = 0;
    return 0;
}

/* -- reading */

static inline double sketch_upper(int key) {
    int at = abs(key) - 1;
    if (!key)
        return 0;
    return copysign(ldexp(SKETCH_SUB_BUCKETS + at % SKETCH_SUB_BUCKETS, at / SKETCH_SUB_BUCKETS + SKETCH_MIN_POWER - 6),
                    key);
}

/* Return the value that represents every sample in a bucket of `s`. */
static inline double sketch_middle(const sketch *s, int key) {
    double middle = sketch_upper(key);
    if (key <= -2 || key >= 2)
        middle = (middle + sketch_upper(key > 0 ? key - 1 : key + 1)) / 2;
    if (s->min > middle)
        middle = s->min;
    return s->max < middle ? s->max : middle;
}

/* Return the smallest p from -40 to 40 with no sample in the bucket above 2 to the power of p, except clamped ones. */
static inline int sketch_power(int key) {
    return SKETCH_MIN_POWER + (key > 1 ? (key + SKETCH_SUB_BUCKETS - 2) / SKETCH_SUB_BUCKETS : 0);
}

static inline int sketch_key_order(const void *one, const void *other) {
    return *(const int16_t *)one - *(const int16_t *)other;
}

/* Write the keys in use, sorted, to `keys`, which has room for them. */
static inline void sketch_sorted_keys(const sketch_buckets *buckets, int16_t *keys) {
    uint32_t n = 0;
    for (uint32_t i = 0; i <= buckets->mask; i++)
        if (buckets->keys[i] != SKETCH_NO_KEY)
            keys[n++] = buckets->keys[i];
    qsort(keys, n, sizeof *keys, sketch_key_order);
}

/* -- the end of writing */

static inline int sketch_before(const sketch *s, uint32_t one, uint32_t other) {
    if (s->samples[one] != s->samples[other])
        return s->samples[one] < s->samples[other];
    return s->weights && s->weights[one] < s->weights[other];
}

/* Sort the indexes of samples in `order` by value, then weight, with a stable merge sort. */
static inline void sketch_order(const sketch *s, uint32_t *order, uint32_t *spare, uint32_t n) {
    uint32_t half = n / 2, left = 0, right = half, at;
    if (n < 12) {
        for (uint32_t i = 1; i < n; i++) {
            uint32_t one = order[i];
            for (at = i; at && sketch_before(s, one, order[at - 1]); at--)
                order[at] = order[at - 1];
            order[at] = one;
        }
        return;
    }
    sketch_order(s, order, spare, half);
    sketch_order(s, order + half, spare, n - half);
    memcpy(spare, order, half * sizeof *order);
    for (at = 0; left < half; at++)
        order[at] = right < n && sketch_before(s, order[right], spare[left]) ? order[right++] : spare[left++];
}

static inline int sketch_sort(sketch *s) {
    uint32_t *order = malloc(2 * (size_t)s->n * sizeof *order);
    double *sorted = malloc(s->n * sizeof *sorted);
    if (!order || !sorted) {
        free(order);
        free(sorted);
        return -1;
    }
    for (uint32_t i = 0; i < s->n; i++)
        order[i] = i;
    sketch_order(s, order, order + s->n, s->n);
    for (int weights = s->weights != NULL; weights >= 0; weights--) { /* weights first: their order depends on the samples */
        double *from = weights ? s->weights : s->samples;
        for (uint32_t i = 0; i < s->n; i++)
            sorted[i] = from[order[i]];
        memcpy(from, sorted, s->n * sizeof *sorted);
    }
    free(order);
    free(sorted);
    return 0;
}

/* Return the common weight of all samples, or 0 if weights differ. */
static inline double sketch_common_weight(const sketch *s) {
    if (s->buckets)
        return s->unit_known ? s->unit : 0;
    for (uint32_t i = 1; s->weights && i < s->n; i++)
        if (s->weights[i] != s->weights[0])
            return 0;
    return s->weights ? s->weights[0] : 1;
}

/* Compute the statistics. Exact samples are sorted, and added smallest first. */
static inline int sketch_freeze(sketch *s) {
    sketch_settle(s);
    if (s->buckets) {
        free(s->samples);
        s->samples = NULL;
        s->room = 0;
    }
    if (!s->n)
        return 0;
    if (sketch_sort(s) < 0)
        return -1;
    double unit = sketch_common_weight(s), sum = -0.0, squares = -0.0;
    s->count = -0.0;
    for (uint32_t i = 0; i < s->n; i++) {
        double value = s->samples[i], weight = unit ? 1 : s->weights[i];
        s->count += s->weights ? s->weights[i] : 1;
        sum += value * weight;
        squares += value * value * weight;
    }
    s->sum = unit ? sum * unit : sum;
    s->sum_squares = unit ? squares * unit : squares;
    s->min = s->samples[0];
    s->max = s->samples[s->n - 1];
    return 0;
}

#endif
