/* The sketch without an interpreter: staging changes nothing but the time it takes, and memory that ends breaks nothing.

   Run by tests/test_native.py, with the address sanitizer. */

#include <stdio.h>
#include <stdlib.h>

static long left = -1; /* allocations that succeed before one fails; -1: all do */

static void *checked(void *memory) { return memory; }
#define LETS_ONE_PASS (left < 0 || left-- > 0)
#define malloc(size) (LETS_ONE_PASS ? checked((malloc)(size)) : NULL)
#define realloc(old, size) (LETS_ONE_PASS ? checked((realloc)(old, size)) : NULL)
#include "ranks.h"
#undef malloc
#undef realloc

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: %s\n", __LINE__, #condition);                                                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t random_state = 1;

static uint32_t chance(uint32_t below) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

static double sample(void) {
    switch (chance(6)) {
    case 0: return chance(3) * 1e300;
    case 1: return -1e-3 * chance(1000);
    case 2: return ldexp(1, (int)chance(90) - 45);
    default: return chance(100000) * 0.1;
    }
}

static double weight(void) { return chance(20) ? 1 : chance(2) ? 10 : 1 / 0.3; }

static int same_bits(double one, double other) { return !memcmp(&one, &other, sizeof one); }

static void check_same(const sketch *one, const sketch *other) {
    uint32_t n = sketch_size(one);
    double *values = calloc(4 * (size_t)n + 1, sizeof *values);
    CHECK(sketch_size(other) == n && one->n == other->n && !one->buckets == !other->buckets);
    CHECK(same_bits(one->count, other->count) && same_bits(one->sum, other->sum));
    CHECK(same_bits(one->sum_squares, other->sum_squares) && same_bits(one->unit, other->unit));
    CHECK(same_bits(one->min, other->min) && same_bits(one->max, other->max) && one->unit_known == other->unit_known);
    CHECK(!sketch_sorted(one, values, values + n) && !sketch_sorted(other, values + 2 * n, values + 3 * n));
    CHECK(!memcmp(values, values + 2 * n, 2 * n * sizeof *values));
    free(values);
}

/* The same samples, staged and added at once, with merges, copies and readings in between. */
static void stage_as_add(void) {
    sketch staged, added, copy;
    uint32_t limit = chance(20), steps = chance(2000);
    sketch_init(&staged, limit);
    sketch_init(&added, limit);
    for (uint32_t i = 0; i < steps; i++) {
        double value = sample(), of = weight();
        CHECK(!sketch_stage(&staged, value, of) && !sketch_add(&added, value, of));
        if (!chance(200)) {
            CHECK(!sketch_copy(&copy, &added) && !sketch_merge(&staged, &copy) && !sketch_merge(&added, &copy));
            sketch_free(&copy);
        }
        if (!chance(100)) {
            CHECK(!sketch_copy(&copy, &staged));
            sketch_free(&staged);
            staged = copy;
        }
        if (!chance(100))
            sketch_settle(&staged);
    }
    CHECK(!sketch_freeze(&staged) && !sketch_freeze(&added));
    check_same(&staged, &added);
    sketch_free(&staged);
    sketch_free(&added);
}

/* Each allocation of a run fails once: what failed has added nothing, and all else is there. */
static void without_memory(void) {
    uint64_t begin = random_state;
    for (long fails_at = 0, failed = 1; failed; fails_at++) {
        sketch s, expected, copy;
        failed = 0;
        random_state = begin;
        left = fails_at;
        sketch_init(&s, 5);
        sketch_init(&expected, 5);
        for (int i = 0; i < 300; i++) {
            double value = sample(), of = weight();
            int stages = (int)chance(2), done = stages ? sketch_stage(&s, value, of) : sketch_add(&s, value, of);
            long before = left;
            left = -1;
            if (done == 0)
                CHECK(!sketch_add(&expected, value, of));
            left = before; /* -1 from the failure on */
            failed |= done < 0;
        }
        failed |= sketch_copy(&copy, &s) < 0;
        sketch_free(&copy);
        while (sketch_freeze(&s) < 0)
            failed = 1;
        left = -1;
        CHECK(!sketch_freeze(&expected));
        check_same(&s, &expected);
        sketch_free(&s);
        sketch_free(&expected);
    }
}

int main(void) {
    for (int i = 0; i < 300; i++)
        stage_as_add();
    for (int i = 0; i < 20; i++)
        without_memory();
    return 0;
}
