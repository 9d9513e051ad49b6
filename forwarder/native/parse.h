/* Parses a line: bytes in, samples out. It has no state, allocates no memory and does not use the interpreter.

   parser.py is the specification: a line gives the same result here, or is left to parser.py (a slow line). Usual syntax
   is read in one pass. Unusual syntax (white space, exponents, other bases, origins, a rate after other fields, members
   beyond ASCII) is read by separate functions, which are called where the fast pass stops. Slow lines are:

   - a line with a bad sample, because parser.py finds the reason;
   - a key of more than 4,096 characters, or nearly;
   - a member of more than 256 characters, because a hash of it is stored, or with invalid UTF-8;
   - numbers of more than 127 characters, or of more than 64 bits in a base other than ten;
   - a line with more than 1,024 samples, or more than 512 groups: it does not fit into a batch. */

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

enum { LONGEST_KEY = 4096, LONGEST_MEMBER = 256, LONGEST_NUMBER = 127, MOST_SAMPLES = 1024 };

typedef struct {
    uint8_t kind;     /* of enum kind */
    uint8_t relative; /* changes a gauge, instead of setting it; or corrects the sums of a distribution, see below */
    uint32_t length;  /* of a member of a set */
    union {
        double value;
        const char *member;
    };
    double weight; /* 1 / rate */
} sample;

/* Return true if this is not a sample, but corrects the sums of the one before it: `value` is added to the sum, `weight` to
   the sum of squares. */
static inline int is_adjustment(const sample *s) { return s->relative && (s->kind == TIMER || s->kind == HISTOGRAM); }

typedef struct {
    const char *key, *tags; /* as written; `tags` is empty if there are none */
    uint32_t key_length, tags_length;
    uint32_t count; /* number of samples */
    uint32_t groups;  /* number of groups of samples of one kind */
    /* given by the caller */
    sample *samples;
    uint32_t room, groups_room; /* at most MOST_SAMPLES */
} line;

/* FULL: `room` or `groups_room` is too small. */
enum line_is { PLAIN, SLOW, FULL, EMPTY, EVENT, SERVICE_CHECK };

static const double powers_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline int is_digit(char character) { return (unsigned char)(character - '0') < 10; }

/* Return the place of the first of two characters in the text, or its end. Compares eight bytes at once. */
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

/* Read a number without sign: up to 19 digits, with or without a point. Return its end, or NULL if there is none. The
   result is correctly rounded: it is the quotient of two numbers that a double holds exactly, rounded once. */
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

/* -- unusual syntax */

/* Return the number of bytes of the character that begins here if it is white space in JavaScript, otherwise 0. */
static inline int white_at(const char *at, const char *end) {
    const unsigned char *c = (const unsigned char *)at;
    if ((c[0] >= 9 && c[0] <= 13) || c[0] == ' ')
        return 1;
    if (c[0] < 0x80 || end - at < 2)
        return 0;
    if (c[0] == 0xC2)
        return c[1] == 0xA0 ? 2 : 0;
    if (end - at < 3)
        return 0;
    switch (c[0] << 8 | c[1]) {
    case 0xE280: return (c[2] >= 0x80 && c[2] <= 0x8A) || c[2] == 0xA8 || c[2] == 0xA9 || c[2] == 0xAF ? 3 : 0;
    case 0xE19A: return c[2] == 0x80 ? 3 : 0;
    case 0xE281: return c[2] == 0x9F ? 3 : 0;
    case 0xE380: return c[2] == 0x80 ? 3 : 0;
    case 0xEFBB: return c[2] == 0xBF ? 3 : 0;
    default: return 0;
    }
}

/* Return the end of the text without trailing white space. In UTF-8, no character begins inside another one. */
static inline const char *without_white_end(const char *at, const char *end) {
    for (int length = 1; length <= 3 && end - at >= length; length++)
        if (white_at(end - length, end) == length) {
            end -= length;
            length = 0;
        }
    return end;
}

static inline const char *without_white_begin(const char *at, const char *end) {
    int length;
    while (at < end && (length = white_at(at, end)))
        at += length;
    return at;
}

/* Read a decimal number with an optional exponent, and with an optional sign where one is allowed. */
static inline int decimal(const char *at, const char *end, int may_have_sign, locale_t c_locale, double *number) {
    const char *digits = at + (may_have_sign && at < end && (*at == '+' || *at == '-')), *stop = digits;
    char text[LONGEST_NUMBER + 1];
    long length = end - at, found;
    while (stop < end && is_digit(*stop))
        stop++;
    found = stop - digits;
    if (stop < end && *stop == '.') {
        digits = ++stop;
        while (stop < end && is_digit(*stop))
            stop++;
        found += stop - digits;
    }
    if (!found || length > LONGEST_NUMBER)
        return 0;
    if (stop < end && (*stop == 'e' || *stop == 'E')) {
        stop += 1 + (end - stop > 1 && (stop[1] == '+' || stop[1] == '-'));
        for (digits = stop; stop < end && is_digit(*stop);)
            stop++;
        if (stop == digits)
            return 0;
    }
    if (stop != end)
        return 0;
    memcpy(text, at, (size_t)length);
    text[length] = 0;
    *number = strtod_l(text, NULL, c_locale) + 0.0; /* no -0 */
    return 1;
}

/* Read the digits of another base, after its letter. */
static inline int other_base(const char *at, const char *end, unsigned base, double *number) {
    uint64_t read = 0;
    if (at == end)
        return 0;
    for (; at < end; at++) {
        unsigned letter = (unsigned)(*at | 0x20) - 'a', digit = is_digit(*at) ? (unsigned)(*at - '0') : letter + 10;
        if ((!is_digit(*at) && letter > 5) || digit >= base || read > (UINT64_MAX - digit) / base)
            return 0;
        read = read * base + digit;
    }
    *number = (double)read;
    return 1;
}

/* Read a number in any form of JavaScript. White space alone is 0; an empty text is not a number. */
static inline int unusual_number(const char *at, const char *end, locale_t c_locale, double *number) {
    const char *begin = without_white_begin(at, end), *stop = without_white_end(begin, end);
    if (begin == stop) {
        *number = 0;
        return at < end;
    }
    if (stop - begin > 2 && *begin == '0')
        switch (begin[1]) {
        case 'x':
        case 'X': return other_base(begin + 2, stop, 16, number);
        case 'o':
        case 'O': return other_base(begin + 2, stop, 8, number);
        case 'b':
        case 'B': return other_base(begin + 2, stop, 2, number);
        }
    return decimal(begin, stop, 1, c_locale, number);
}

/* Return true if the text is valid UTF-8, as Python defines it, and has at most the given number of characters. */
static inline int is_utf8(const char *text, uint32_t length, uint32_t characters) {
    const unsigned char *at = (const unsigned char *)text, *end = at + length;
    for (; at < end; characters--) {
        unsigned first = *at++, low = 0x80, high = 0xBF;
        int more;
        if (!characters)
            return 0;
        if (first < 0x80)
            continue;
        if (first < 0xC2 || first > 0xF4)
            return 0;
        more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        if (first == 0xE0)
            low = 0xA0;
        else if (first == 0xED)
            high = 0x9F; /* no surrogates */
        else if (first == 0xF0)
            low = 0x90;
        else if (first == 0xF4)
            high = 0x8F;
        if (end - at < more)
            return 0;
        for (; more; more--, low = 0x80, high = 0xBF)
            if (*at < low || *at++ > high)
                return 0;
    }
    return 1;
}

static inline int plain_member(const char *at, uint32_t length) {
    if (length > LONGEST_MEMBER)
        return is_utf8(at, length, LONGEST_MEMBER);
    for (uint32_t i = 0; i < length; i++)
        if ((signed char)at[i] < 0)
            return is_utf8(at, length, LONGEST_MEMBER);
    return 1;
}

/* -- parts of a sample */

/* Read the rate after an @, with optional white space at the end, as a weight. */
static inline int weight_of(const char *at, const char *end, locale_t c_locale, double *weight) {
    double rate = 0;
    if (unsigned_number(at, end, c_locale, &rate) != end &&
        !decimal(at, without_white_end(at, end), 0, c_locale, &rate))
        return 0;
    *weight = 1 / rate;
    return rate > 0 && rate <= 1 && isfinite(*weight);
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

static inline const char *plain_type(const char *at, const char *end, int *kind) {
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

/* Read a type, with optional white space around it. Return its end, or NULL if it is not a type. */
static inline const char *read_type(const char *at, const char *end, int *kind) {
    const char *stop = plain_type(at, end, kind), *begin, *last;
    if (stop)
        return stop;
    stop = find_either(at, end, '|', ':');
    begin = without_white_begin(at, stop);
    last = without_white_end(begin, stop);
    return plain_type(begin, last, kind) == last ? stop : NULL;
}

static inline int is_time(const char *at, const char *end) {
    if (end - at < 2 || *at++ != 'T')
        return 0;
    while (at < end && is_digit(*at))
        at++;
    return at == end;
}

static inline int is_origin(const char *at, const char *end) {
    return end - at == 1 ? *at == 'c' || *at == 'e' : end - at == 4 && !memcmp(at, "card", 4);
}

/* Read the corrections of the sums after "~": two numbers. */
static inline int read_sums(const char *at, const char *end, locale_t c_locale, double sums[2]) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    return comma && decimal(at, comma, 1, c_locale, &sums[0]) && decimal(comma + 1, end, 1, c_locale, &sums[1]) &&
           isfinite(sums[0]) && isfinite(sums[1]);
}

/* Read the fields after a type, up to the tags or the next value; `at` is the bar before the first field. Return their end,
   or NULL if they are bad: the first must be a rate or a timestamp. The first rate is used. Other unknown fields are
   skipped, and so are origins, whose colons do not separate values. The caller sets `sums` to zeros. */
static inline const char *read_fields(const char *at, const char *end, locale_t c_locale, double *weight, int *rated,
                                      double sums[2]) {
    int first = 1, summed = 0;
    while (at < end && *at == '|' && !(end - at > 1 && at[1] == '#')) {
        const char *field = at + 1;
        at = find_either(field, end, '|', ':');
        if (is_origin(field, at)) {
            if (at == end || *at == '|')
                return NULL; /* its meaning depends on the next sample */
            at = find_either(at + 1, end, '|', ':');
            continue;
        }
        if (field < end && *field == '@') {
            if (!*rated && !weight_of(field + 1, at, c_locale, weight))
                return NULL;
            *rated = 1;
        } else if (first && !is_time(field, at))
            return NULL;
        else if (field < end && *field == '~' && (summed++ || !read_sums(field + 1, at, c_locale, sums)))
            return NULL; /* a second one, or unusual numbers */
        first = 0;
    }
    return at;
}

/* Read the text after "|#": the tags, and fields of the last sample. Stores its weight, unless `weight` is NULL. */
static inline int read_tags(const char *at, const char *end, locale_t c_locale, line *into, double *weight) {
    const char *stop = memchr(at, '|', (size_t)(end - at));
    into->tags = at;
    into->tags_length = (uint32_t)((stop ? stop : end) - at);
    while (weight && stop) { /* the first rate is used */
        at = stop + 1;
        stop = memchr(at, '|', (size_t)(end - at));
        if (at < end && *at == '@')
            return weight_of(at + 1, stop ? stop : end, c_locale, weight);
    }
    return 1;
}

/* Make samples of values and their type. Several values of a set are one member, which includes their colons. */
static inline enum line_is make_samples(line *into, value *values, uint32_t count, int kind, double weight,
                                       const double sums[2], locale_t c_locale) {
    sample *one = into->samples + into->count;
    int adjusts = (kind == TIMER || kind == HISTOGRAM) && (sums[0] || sums[1]);
    into->groups += !into->count || one[-1].kind != kind;
    if (into->groups > into->groups_room || (kind == UNIQUE ? 1 : count + adjusts) > into->room - into->count)
        return FULL;
    if (kind == UNIQUE) {
        one->kind = UNIQUE;
        one->member = values[0].start;
        one->length = (uint32_t)(values[count - 1].end - values[0].start);
        if (!one->length) {
            one->member = "0";
            one->length = 1;
        }
        into->count++;
        return plain_member(one->member, one->length) ? PLAIN : SLOW;
    }
    for (uint32_t i = 0; i < count; i++, one++) {
        value *v = &values[i];
        double reach;
        if (!v->is_number && !unusual_number(v->start, v->end, c_locale, &v->number))
            return SLOW;
        reach = kind == GAUGE ? v->number : kind == COUNTER ? v->number * weight : v->number * v->number * weight;
        if (!isfinite(reach) || (kind == TIMER && v->number < 0))
            return SLOW;
        one->kind = (uint8_t)kind;
        one->relative = kind == GAUGE && v->sign;
        one->value = v->number;
        one->weight = weight;
    }
    into->count += count;
    if (adjusts) {
        *one = (sample){.kind = (uint8_t)kind, .relative = 1, .value = sums[0], .weight = sums[1]};
        into->count++;
    }
    return PLAIN;
}

static inline enum line_is special(const char *at, const char *end) {
    if (end - at >= 3 && !memcmp(at, "_e{", 3))
        return EVENT;
    return end - at >= 4 && !memcmp(at, "_sc|", 4) ? SERVICE_CHECK : PLAIN;
}

/* Read the line from `at` to `end`, which has no line feed, into `into`. */
static inline enum line_is read_line(const char *at, const char *end, locale_t c_locale, line *into) {
    value values[MOST_SAMPLES];
    uint32_t waiting = 0; /* number of values whose type follows later */
    while (end > at && end[-1] == '\r')
        end--;
    if (at == end)
        return EMPTY;
    if (*at == '_' && special(at, end) != PLAIN)
        return special(at, end);
    into->key = at;
    into->tags = end;
    into->tags_length = 0;
    into->count = into->groups = 0;
    at = find_either(at, end, ':', '|');
    if (at == end || *at == '|')
        return SLOW;
    into->key_length = (uint32_t)(at - into->key);
    while (at < end) { /* `at` is the colon before a value */
        double weight = 1, sums[2] = {0, 0};
        int kind = COUNTER, rated = 0;
        enum line_is made;
        if (waiting == into->room)
            return FULL;
        at = read_value(at + 1, end, c_locale, &values[waiting++]);
        if (at == end)
            return SLOW; /* a value without a type */
        if (*at == ':')
            continue;
        if (!(at = read_type(at + 1, end, &kind)))
            return SLOW;
        if (at < end && *at == '|') {
            if (!(at = read_fields(at, end, c_locale, &weight, &rated, sums)))
                return SLOW;
            if (at < end && *at == '|') {
                if (!read_tags(at + 2, end, c_locale, into, rated ? NULL : &weight))
                    return SLOW;
                at = end;
            }
        }
        if ((made = make_samples(into, values, waiting, kind, weight, sums, c_locale)) != PLAIN)
            return made;
        waiting = 0;
    }
    return into->key_length + into->tags_length >= LONGEST_KEY ? SLOW : PLAIN; /* not `>`: a semicolon may be inserted between key and tags */
}

#endif
