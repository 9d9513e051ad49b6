/* What a line says, for the lines that nearly all are: bytes in, measurements out. No state, no memory, no interpreter.

   parser.py is the specification. What is here reads the same in the same way or not at all: whatever is unusual in a
   line (white space, exponents, other bases, a bad sample, bytes beyond ASCII where a value or a type should be) makes it
   a slow line, which is read there. */

#ifndef FORWARDER_NATIVE_PARSE_H
#define FORWARDER_NATIVE_PARSE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strtod_l */
#endif
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum kind { COUNTER, TIMER, HISTOGRAM, GAUGE, UNIQUE, KINDS };

enum { LONGEST_KEY = 4096, LONGEST_MEMBER = 256, MOST_SAMPLES = 64 };

typedef struct {
    uint8_t kind;     /* of enum kind */
    uint8_t relative; /* a gauge is changed by the value, not set to it */
    uint32_t length;  /* a set's member's */
    union {
        double value;
        const char *member;
    };
    double weight; /* 1 / rate */
} sample;

typedef struct {
    const char *key, *tags; /* as written; no tags: an empty text */
    uint32_t key_length, tags_length;
    int count;     /* how many samples there are */
    sample *samples; /* room for MOST_SAMPLES, given by the caller */
} line;

enum line_is { PLAIN, SLOW, EMPTY, EVENT, SERVICE_CHECK };

static const double powers_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline int is_digit(char character) { return (unsigned char)(character - '0') < 10; }

/* Return the first of two characters in the text, or its end. Eight bytes are looked at at once. */
static inline const char *find_either(const char *at, const char *end, char one, char other) {
    const uint64_t low = 0x0101010101010101ull, high = 0x8080808080808080ull;
    uint64_t ones = low * (unsigned char)one, others = low * (unsigned char)other;
    for (; end - at >= 8; at += 8) {
        uint64_t word, first, second;
        memcpy(&word, at, 8);
        first = word ^ ones;
        second = word ^ others;
        if ((((first - low) & ~first) | ((second - low) & ~second)) & high)
            break;
    }
    while (at < end && *at != one && *at != other)
        at++;
    return at;
}

/* Read a number without sign: digits, perhaps with a point among them, and no more than 19. Return where it ends, or NULL
   where there is none. A quotient of two numbers that are exact in a double is rounded once, and so the nearest one. */
static inline const char *unsigned_number(const char *at, const char *end, locale_t c_locale, double *number) {
    const char *start = at;
    uint64_t digits = 0;
    long before, behind = 0;
    for (; at < end && is_digit(*at); at++)
        digits = digits * 10 + (uint64_t)(*at - '0');
    before = at - start;
    if (at < end && *at == '.') {
        for (at++; at < end && is_digit(*at); at++)
            digits = digits * 10 + (uint64_t)(*at - '0');
        behind = at - start - before - 1;
    }
    if (!(before + behind) || before + behind > 19)
        return NULL;
    if (digits <= (1ull << 53))
        *number = behind ? (double)digits / powers_of_ten[behind] : (double)digits;
    else {
        char text[24];
        memcpy(text, start, (size_t)(at - start));
        text[at - start] = 0;
        *number = strtod_l(text, NULL, c_locale);
    }
    return at;
}

static inline int plain_member(const char *at, uint32_t length) {
    if (length > LONGEST_MEMBER)
        return 0;
    for (uint32_t i = 0; i < length; i++)
        if ((signed char)at[i] < 0)
            return 0;
    return 1;
}

/* Read a rate, behind its @, as a weight. */
static inline int weight_of(const char *at, const char *end, locale_t c_locale, double *weight) {
    double rate;
    if (unsigned_number(at, end, c_locale, &rate) != end || !(rate > 0 && rate <= 1))
        return 0;
    *weight = 1 / rate;
    return 1;
}

/* A value as it stands in a line, before its type is known. */
typedef struct {
    const char *start, *end;
    double number;
    uint8_t sign, is_number;
} value;

static inline const char *read_value(const char *at, const char *end, locale_t c_locale, value *into) {
    const char *stop;
    into->start = at;
    into->sign = at < end && (*at == '-' || *at == '+');
    stop = unsigned_number(at + into->sign, end, c_locale, &into->number);
    into->is_number = stop && (stop == end || *stop == '|' || *stop == ':');
    if (into->sign && *at == '-')
        into->number = 0.0 - into->number; /* no -0 */
    into->end = into->is_number ? stop : find_either(at, end, '|', ':');
    return into->end;
}

/* Read a type; return where it ends, or NULL where it is none. */
static inline const char *read_type(const char *at, const char *end, int *kind) {
    if (at == end)
        return NULL;
    switch (*at++) {
    case 'c': *kind = COUNTER; break;
    case 'g': *kind = GAUGE; break;
    case 's': *kind = UNIQUE; break;
    case 'h':
    case 'd': *kind = HISTOGRAM; break;
    case 'm':
        if (at == end || *at++ != 's')
            return NULL;
        *kind = TIMER;
        break;
    default: return NULL;
    }
    return at == end || *at == '|' || *at == ':' ? at : NULL;
}

/* Read the one field behind a type, if it is a rate or a time; return where it ends, or NULL. */
static inline const char *read_field(const char *at, const char *end, locale_t c_locale, double *weight) {
    const char *stop = find_either(at, end, '|', ':');
    if (at < stop && *at == '@')
        return weight_of(at + 1, stop, c_locale, weight) ? stop : NULL;
    if (stop - at < 2 || *at++ != 'T')
        return NULL;
    while (at < stop)
        if (!is_digit(*at++))
            return NULL;
    return stop;
}

/* Read what stands behind "|#": tags, and fields that belong to the last sample. */
static inline int read_tags(const char *at, const char *end, locale_t c_locale, line *into, double *weight) {
    const char *stop = memchr(at, '|', (size_t)(end - at));
    into->tags = at;
    into->tags_length = (uint32_t)((stop ? stop : end) - at);
    while (stop) { /* the first rate counts */
        at = stop + 1;
        stop = memchr(at, '|', (size_t)(end - at));
        if (at < end && *at == '@')
            return weight_of(at + 1, stop ? stop : end, c_locale, weight);
    }
    return 1;
}

/* Make samples of values with their type. Several values of a set are one member, colons and all. */
static inline int make_samples(line *into, const value *values, int count, int kind, double weight) {
    sample *one = into->samples + into->count;
    if (into->count + count > MOST_SAMPLES)
        return 0;
    if (kind == UNIQUE) {
        one->kind = UNIQUE;
        one->member = values[0].start;
        one->length = (uint32_t)(values[count - 1].end - values[0].start);
        if (!one->length) {
            one->member = "0";
            one->length = 1;
        }
        into->count++;
        return plain_member(one->member, one->length);
    }
    for (int i = 0; i < count; i++, one++) {
        if (!values[i].is_number || (kind == TIMER && values[i].number < 0))
            return 0;
        one->kind = (uint8_t)kind;
        one->relative = kind == GAUGE && values[i].sign;
        one->value = values[i].number;
        one->weight = weight;
    }
    into->count += count;
    return 1;
}

static inline enum line_is special(const char *at, const char *end) {
    if (end - at >= 3 && !memcmp(at, "_e{", 3))
        return EVENT;
    return end - at >= 4 && !memcmp(at, "_sc|", 4) ? SERVICE_CHECK : PLAIN;
}

/* Read the line from `at` to `end`, which has no line feed, into `into`. */
static inline enum line_is read_line(const char *at, const char *end, locale_t c_locale, line *into) {
    value values[MOST_SAMPLES];
    int waiting = 0; /* values that have no type yet */
    while (end > at && end[-1] == '\r')
        end--;
    if (at == end)
        return EMPTY;
    if (*at == '_' && special(at, end) != PLAIN)
        return special(at, end);
    into->key = at;
    into->tags = end;
    into->tags_length = 0;
    into->count = 0;
    at = find_either(at, end, ':', '|');
    if (at == end || *at == '|')
        return SLOW;
    into->key_length = (uint32_t)(at - into->key);
    while (at < end) { /* at a colon: a value begins behind it */
        double weight = 1;
        int kind, rated = 0;
        if (waiting == MOST_SAMPLES)
            return SLOW;
        at = read_value(at + 1, end, c_locale, &values[waiting++]);
        if (at == end)
            return SLOW; /* a value without a type */
        if (*at == ':')
            continue;
        if (!(at = read_type(at + 1, end, &kind)))
            return SLOW;
        if (at < end && *at == '|' && at + 1 < end && at[1] != '#') {
            rated = at[1] == '@';
            if (!(at = read_field(at + 1, end, c_locale, &weight)))
                return SLOW;
        }
        if (at < end && *at == '|') {
            double last = 0;
            if (at + 1 == end || at[1] != '#' || !read_tags(at + 2, end, c_locale, into, &last))
                return SLOW;
            if (last && !rated)
                weight = last;
            at = end;
        }
        if (!make_samples(into, values, waiting, kind, weight))
            return SLOW;
        waiting = 0;
    }
    return into->key_length + into->tags_length > LONGEST_KEY ? SLOW : PLAIN;
}

#endif
