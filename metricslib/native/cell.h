/* The state of one instrument in the open interval, which any thread may change at any time.

   Most calls change it here directly: the fast path. Other values (of another type, or whose sum is too large) are
   appended to a list of pending values. To keep the order, all later values are appended too, until a fold, in Python, has
   moved the list into the state. `shut` has the reasons why the fast path is closed.

   With the interpreter lock, only one thread at a time is in this code. Without it (CELL_ATOMIC), each change holds a flag
   for a few instructions. No Python code runs meanwhile, so that a signal handler or a callback of the garbage collector
   never finds it held by its own thread. The code does not use the interpreter, so that a test can use plain threads. */

#ifndef METRICSLIB_CELL_H
#define METRICSLIB_CELL_H

#include <math.h>
#include <stdint.h>

#ifdef CELL_ATOMIC
#include <sched.h>
#include <stdatomic.h>
#endif

enum cell_shut {
    CELL_PENDING = 1, /* there are pending values, or a fold is under way */
    CELL_ASLEEP = 2,  /* the next value wakes the instrument */
    CELL_VOID = 4,    /* values are discarded */
};

enum number_kind { NOTHING, WHOLE, REAL, OBJECT };

typedef struct {
    union {
        int64_t whole;
        double real;
        void *object; /* any other state, or a number too large for the others; owned by the cell */
    };
} number_value;

typedef struct {
    number_value base;  /* the total of a counter, the value a gauge was set to, or the state of another instrument */
    number_value delta; /* the sum of the changes of a gauge since it was set */
    uint8_t base_kind;  /* of enum number_kind */
    uint8_t delta_kind; /* of a gauge; never OBJECT */
    uint8_t shut;       /* a bit mask of enum cell_shut */
#ifdef CELL_ATOMIC
    atomic_flag busy;
#endif
} cell;

static inline void cell_lock(cell *c) {
#ifdef CELL_ATOMIC
    while (atomic_flag_test_and_set_explicit(&c->busy, memory_order_acquire))
        sched_yield();
#else
    (void)c;
#endif
}

static inline void cell_unlock(cell *c) {
#ifdef CELL_ATOMIC
    atomic_flag_clear_explicit(&c->busy, memory_order_release);
#else
    (void)c;
#endif
}

/* Add to a number like Python. Return 0, without a change, if the sum has none of these types or is not finite. */
static inline int number_add(number_value *to, uint8_t *to_kind, number_value n, uint8_t kind) {
    uint8_t before = *to_kind;
    number_value sum;
    if (before == OBJECT)
        return 0;
    if (before == NOTHING || (before == WHOLE && kind == WHOLE)) {
        if (kind != WHOLE && !isfinite(n.real))
            return 0;
        if (before == NOTHING)
            sum = n;
        else if (__builtin_add_overflow(to->whole, n.whole, &sum.whole))
            return 0;
        *to = sum;
        *to_kind = kind;
        return 1;
    }
    sum.real = (before == WHOLE ? (double)to->whole : to->real) + (kind == WHOLE ? (double)n.whole : n.real);
    if (!isfinite(sum.real))
        return 0;
    *to = sum;
    *to_kind = REAL;
    return 1;
}

/* The fast paths. Each returns true if it could be used. */

static inline int cell_count(cell *c, number_value n, uint8_t kind) {
    int done;
    cell_lock(c);
    done = !c->shut && number_add(&c->base, &c->base_kind, n, kind);
    cell_unlock(c);
    return done;
}

static inline int cell_set(cell *c, number_value value, uint8_t kind) {
    int done;
    cell_lock(c);
    done = !c->shut && c->base_kind != OBJECT && (kind == WHOLE || isfinite(value.real));
    if (done) {
        c->base = value;
        c->base_kind = kind;
        c->delta.whole = 0;
        c->delta_kind = WHOLE;
    }
    cell_unlock(c);
    return done;
}

static inline int cell_change(cell *c, number_value n, uint8_t kind) {
    int done;
    cell_lock(c);
    done = !c->shut && c->base_kind != OBJECT && number_add(&c->delta, &c->delta_kind, n, kind);
    cell_unlock(c);
    return done;
}

static inline void cell_close(cell *c, uint8_t why) {
    cell_lock(c);
    c->shut |= why;
    cell_unlock(c);
}

static inline void cell_open(cell *c, uint8_t why) {
    cell_lock(c);
    c->shut &= (uint8_t)~why;
    cell_unlock(c);
}

#endif
