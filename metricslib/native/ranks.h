/* The statistics of a frozen distribution: shares, median, standard deviation.

   The methods of Samples in sketch.py that read are the specification: the same operations in the same order. The code does
   not use the interpreter. Functions that allocate memory return -1 if out of memory. */

#ifndef METRICSLIB_RANKS_H
#define METRICSLIB_RANKS_H

#include "sketch.h"

/* The given percentage of the samples: the smallest ones, or the largest ones if it is negative. */
typedef struct {
    double weight, boundary, sum, sum_squares, mean;
} sketch_share;

/* The values, smallest first, and for each the number, sum and sum of squares of all samples up to it. */
typedef struct {
    double *values, *reached, *sums, *squares; /* one block of memory, which begins with the values */
    uint32_t n;
    double unit; /* the weight of one sample */
} sketch_ranks;

/* Return the keys in use, sorted, which the caller frees; NULL if out of memory. */
static inline int16_t *sketch_keys(const sketch_buckets *buckets) {
    int16_t *keys = malloc((buckets->used + 1) * sizeof *keys);
    if (keys)
        sketch_sorted_keys(buckets, keys);
    return keys;
}

/* Write the values, smallest first, and their weights. In a sketch, the values are the middles of buckets. */
static inline int sketch_sorted(const sketch *s, double *values, double *weights) {
    const sketch_buckets *buckets = s->buckets;
    int16_t *keys;
    if (!buckets) {
        for (uint32_t i = 0; i < s->n; i++) {
            values[i] = s->samples[i];
            weights[i] = s->weights ? s->weights[i] : 1;
        }
        return 0;
    }
    if (!(keys = sketch_keys(buckets)))
        return -1;
    for (uint32_t i = 0; i < buckets->used; i++) {
        values[i] = sketch_middle(s, keys[i]);
        weights[i] = buckets->weights[sketch_place(buckets, keys[i])];
    }
    free(keys);
    return 0;
}

static inline uint32_t sketch_size(const sketch *s) { return s->buckets ? s->buckets->used : s->n; }

/* Compute `ranks`, which the caller frees with free(ranks->values). There must be at least one sample. */
static inline int sketch_rank(const sketch *s, sketch_ranks *ranks) {
    uint32_t n = sketch_size(s);
    double unit = sketch_common_weight(s), reached = -0.0, sum = -0.0, squares = -0.0; /* x + -0.0 is x, for any x */
    double *values = malloc(4 * (size_t)n * sizeof *values), *weights = values + n;
    if (!values)
        return -1;
    if (sketch_sorted(s, values, weights) < 0) {
        free(values);
        return -1;
    }
    *ranks = (sketch_ranks){values, weights, values + 2 * n, values + 3 * n, n, unit ? unit : 1};
    for (uint32_t i = 0; i < n; i++) {
        double value = values[i], number = ranks->unit == 1 ? weights[i] : rint(weights[i] / ranks->unit);
        ranks->reached[i] = reached += number;
        ranks->sums[i] = sum += value * number;
        ranks->squares[i] = squares += value * value * number;
    }
    return 0;
}

/* Return the first place where the cumulative weight reaches a number of samples, or the last place. */
static inline uint32_t sketch_at(const sketch_ranks *ranks, double lines) {
    uint32_t low = 0, high = ranks->n - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ranks->reached[middle] < lines)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Keep a mean, which has accumulated rounding errors, within the range of the samples. */
static inline double sketch_between(double mean, double least, double most) {
    if (least > mean)
        mean = least;
    return most < mean ? most : mean;
}

/* Return true if the sums are computed without weights and multiplied by the common weight at the end. */
static inline int sketch_plain(const sketch *s) { return !s->buckets && sketch_common_weight(s) != 0; }

static inline double sketch_mean(const sketch *s) {
    double sum = -0.0;
    if (!s->count)
        return NAN;
    if (!sketch_plain(s))
        return sketch_between(s->sum / s->count, s->min, s->max);
    for (uint32_t i = 0; i < s->n; i++)
        sum += s->samples[i];
    return sum / s->n;
}

/* Write a share and return 1, or return 0 if it is empty. `lines`, which is finite, is the number of its samples. */
static inline int sketch_share_of(const sketch *s, const sketch_ranks *ranks, double percent, double lines,
                                  sketch_share *share) {
    double whole = ranks->reached[ranks->n - 1], low = percent > 0 ? lines : whole - lines, over, sum, squares, mean;
    double least = s->min, most = s->max;
    uint32_t last = sketch_at(ranks, low);
    if (lines == 0)
        return 0;
    if (lines >= whole) {
        *share = (sketch_share){s->count, percent > 0 ? s->max : s->min, s->sum, s->sum_squares, sketch_mean(s)};
        return 1;
    }
    over = ranks->reached[last] - low;
    sum = ranks->sums[last] - over * ranks->values[last];
    squares = ranks->squares[last] - over * ranks->values[last] * ranks->values[last];
    if (percent > 0)
        most = ranks->values[last];
    else {
        last = sketch_at(ranks, low + 1);
        least = ranks->values[last];
        sum = ranks->sums[ranks->n - 1] - sum;
        squares = ranks->squares[ranks->n - 1] - squares;
    }
    mean = sketch_plain(s) ? sum / lines : sketch_between(sum / lines, least, most);
    *share = (sketch_share){lines * ranks->unit, ranks->values[last], sum * ranks->unit, squares * ranks->unit, mean};
    return 1;
}

/* Return the number of samples in a share. It is not finite if the percentage is invalid. */
static inline double sketch_lines(const sketch_ranks *ranks, double percent) {
    double whole = ranks->reached[ranks->n - 1];
    return whole == 1 ? 1 : floor(fabs(percent) / 100 * whole + 0.5);
}

static inline double sketch_median(const sketch_ranks *ranks) {
    double half = ranks->reached[ranks->n - 1] / 2;
    uint32_t middle = sketch_at(ranks, half);
    if (ranks->reached[middle] == half && middle + 1 < ranks->n)
        return (ranks->values[middle] + ranks->values[middle + 1]) / 2;
    return ranks->values[middle];
}

static inline double sketch_std(const sketch *s) {
    double mean = sketch_mean(s), sum = -0.0;
    int plain = sketch_plain(s);
    if (!s->count)
        return NAN;
    if (s->buckets) {
        double variance = s->sum_squares / s->count - mean * mean;
        return variance > 0 ? sqrt(variance) : 0;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        double square = (s->samples[i] - mean) * (s->samples[i] - mean);
        sum += plain ? square : square * s->weights[i];
    }
    return sqrt(sum / (plain ? s->n : s->count));
}

#endif
