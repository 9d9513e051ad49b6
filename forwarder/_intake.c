/* The twin of intake.py and parser.py: bytes of datagrams and streams in, aggregates out, without an object a line.

   A batch is read, resolved and applied. Reading makes of each line what it does to which series, without the interpreter
   lock. Resolving takes that lock, once for a batch, and only if there is a key that was never seen or a line that only
   parser.py understands. Applying holds the table's mutex, for which only a collection competes, and that only moves
   values aside. Nobody waits for the interpreter lock while holding the mutex. */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include "sketch_api.h"
#include "_table.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

enum {
    RUNS = 512, /* in a batch: few enough to stay in the processor's caches */
    PIECES = RUNS + MOST_PIECES,
    AHEAD = 8,                /* how far ahead memory is asked for */
    MESSAGES = 128,           /* datagrams that are received at once, */
    USUAL = 2048,             /* of so many bytes, or */
    LONGEST_DATAGRAM = 65536, /* at most so many */
    ODD_LINE = -1000,         /* the series of a run that stands for a whole line, */
    UNKNOWN = -1001,          /* or for pieces whose series could not be asked for */
};

/* Pieces of one line and one kind, so of one series. */
typedef struct {
    written written;
    int32_t series;
    uint32_t first, count; /* pieces */
    uint64_t hash;
    uint32_t place; /* where the look-up goes on */
    uint32_t length;
    const char *line;
} run;

/* What parser.py says of a line. */
typedef struct {
    uint32_t count, bad;
    struct effect {
        int32_t series;
        piece piece;
    } *effects; /* to be freed, with the members behind them */
} odd_line;

typedef struct {
    PyObject_HEAD
    table table;
    PyObject **keys; /* by series: the canonical key */
    uint32_t keys_room;
    uint32_t *by_key; /* series by kind and key, in an open-addressing table; UINT32_MAX: free */
    uint32_t by_key_mask, by_key_used;
    uint32_t most_spellings;
    PyObject *owner; /* the Python side, which is asked */
    int interrupted; /* the owner wants to be asked before the next batch */
    PyTypeObject *distribution, *gauge_change;
    const sketch_api *sketches;
    /* the owner's: a batch */
    run runs[RUNS];
    piece pieces[PIECES];
    odd_line odd[RUNS]; /* of the run of the same number, if it is one */
    uint32_t run_count, piece_count, questions;
    uint64_t packets, lines, events, service_checks; /* of this batch */
    uint64_t bad;                                    /* of all, under the mutex */
    struct mmsghdr *messages;
    struct iovec *places;
    char *usual, *rest, *whole;
    double seen;
    PyThreadState *released;
} Intake;

/* -- series by key; with the interpreter lock */

static uint32_t key_place(Intake *self, int kind, PyObject *key, Py_hash_t hash) {
    uint32_t at = (uint32_t)((uint64_t)hash * 0x9E3779B97F4A7C15ull >> 32) + (uint32_t)kind;
    for (at &= self->by_key_mask; self->by_key[at] != UINT32_MAX; at = (at + 1) & self->by_key_mask) {
        uint32_t number = self->by_key[at];
        if (self->keys[number] && self->table.series[number].kind == kind && !PyUnicode_Compare(self->keys[number], key))
            break;
    }
    return at;
}

static int grow_by_key(Intake *self, uint32_t places) {
    uint32_t *before = self->by_key, before_mask = self->by_key_mask;
    uint32_t *grown = malloc(places * sizeof *grown);
    if (!grown)
        return -1;
    memset(grown, 0xFF, places * sizeof *grown);
    self->by_key = grown;
    self->by_key_mask = places - 1;
    self->by_key_used = 0;
    for (uint32_t i = 0; before && i <= before_mask; i++)
        if (before[i] != UINT32_MAX && self->keys[before[i]]) {
            PyObject *key = self->keys[before[i]];
            grown[key_place(self, self->table.series[before[i]].kind, key, PyObject_Hash(key))] = before[i];
            self->by_key_used++;
        }
    free(before);
    return 0;
}

static PyObject *intake_series(Intake *self, PyObject *args) {
    int kind, overflow;
    PyObject *key;
    uint32_t at;
    int32_t number;
    if (!PyArg_ParseTuple(args, "iUp", &kind, &key, &overflow))
        return NULL;
    at = key_place(self, kind, key, PyObject_Hash(key));
    if (self->by_key[at] != UINT32_MAX) {
        self->table.series[self->by_key[at]].dying = 0;
        return PyLong_FromUnsignedLong(self->by_key[at]);
    }
    if (2 * (self->by_key_used + 1) > self->by_key_mask + 1) {
        if (grow_by_key(self, 2 * (self->by_key_mask + 1)) < 0)
            return PyErr_NoMemory();
        at = key_place(self, kind, key, PyObject_Hash(key));
    }
    pthread_mutex_lock(&self->table.mutex);
    number = add_series(&self->table, (enum kind)kind);
    pthread_mutex_unlock(&self->table.mutex);
    if (number < 0)
        return PyErr_NoMemory();
    if ((uint32_t)number >= self->keys_room) {
        uint32_t room = self->table.series_room;
        PyObject **grown = realloc(self->keys, room * sizeof *grown);
        if (!grown)
            return PyErr_NoMemory();
        memset(grown + self->keys_room, 0, (room - self->keys_room) * sizeof *grown);
        self->keys = grown;
        self->keys_room = room;
    }
    self->table.series[number].overflow = (uint8_t)overflow;
    self->keys[number] = Py_NewRef(key);
    self->by_key[at] = (uint32_t)number;
    self->by_key_used++;
    return PyLong_FromLong(number);
}

/* Let a series go that nobody finds any more. Its key leaves the table of keys when that is next made anew. */
static void free_series(Intake *self, uint32_t number) {
    series *s = &self->table.series[number];
    PyObject *key = self->keys[number];
    pthread_mutex_lock(&self->table.mutex);
    free_value(s);
    memset(s, 0, sizeof *s);
    self->table.free_series[self->table.free_count++] = number;
    pthread_mutex_unlock(&self->table.mutex);
    self->keys[number] = NULL;
    Py_XDECREF(key);
}

/* -- resolving; with the interpreter lock */

static void tell(Intake *self, const char *method) {
    PyObject *told = PyObject_CallMethod(self->owner, method, NULL);
    if (!told)
        PyErr_WriteUnraisable(self->owner);
    Py_XDECREF(told);
}

static int32_t ask(Intake *self, int kind, const char *text, uint32_t length) {
    PyObject *found = PyObject_CallMethod(self->owner, "_find", "iy#", kind, text, (Py_ssize_t)length);
    long number = found ? PyLong_AsLong(found) : -1;
    Py_XDECREF(found);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(self->owner);
        return UNKNOWN;
    }
    return (int32_t)number;
}

/* Remember which series a spelling means. Too many are all forgotten; without memory it is asked for again. */
static void remember(Intake *self, const written *w, uint64_t hash, int32_t series) {
    table *t = &self->table;
    if (t->spelled >= self->most_spellings) {
        t->spelled = 0;
        t->size = 0;
        for (uint32_t i = 0; i <= t->mask; i++)
            t->spellings[i].series = NOT_FOUND;
    }
    add_spelling(t, w, hash, series);
}

static int32_t known_series(const table *t, const written *w, uint64_t hash) {
    return find_series(t, w, hash, next_place(t, (uint32_t)hash, hash));
}

static void resolve_spelling(Intake *self, run *r) {
    int32_t answer;
    r->series = known_series(&self->table, &r->written, r->hash);
    if (r->series != NOT_FOUND) /* answered for the same key earlier in this batch */
        return;
    answer = ask(self, r->written.kind, r->line, r->length);
    r->series = known_series(&self->table, &r->written, r->hash);
    if (r->series == NOT_FOUND && answer != UNKNOWN)
        remember(self, &r->written, r->hash, answer);
    r->series = answer;
}

static int written_from(PyObject *args, written *w, int *series) {
    Py_ssize_t length;
    *w = (written){0};
    if (!PyArg_ParseTuple(args, series ? "by#i" : "by#", &w->kind, &w->key, &length, series))
        return -1;
    w->key_length = (uint32_t)length;
    w->tags = w->key;
    return 0;
}

PyDoc_STRVAR(look_up_doc, "look_up($self, kind, key, /)\n--\n\nReturn the number that is remembered for a key with its "
                          "tags in it, or -1.");

static PyObject *intake_look_up(Intake *self, PyObject *args) {
    written w;
    if (written_from(args, &w, NULL) < 0)
        return NULL;
    return PyLong_FromLong(known_series(&self->table, &w, spelling_hash(&self->table, &w)));
}

PyDoc_STRVAR(remember_doc, "remember($self, kind, key, series, /)\n--\n\nRemember the number for a key.");

static PyObject *intake_remember(Intake *self, PyObject *args) {
    written w;
    int series;
    if (written_from(args, &w, &series) < 0)
        return NULL;
    remember(self, &w, spelling_hash(&self->table, &w), series);
    Py_RETURN_NONE;
}

static int effect_from(PyObject *tuple, struct effect *into, char **members) {
    const char *text;
    Py_ssize_t length;
    int kind, relative;
    double value;
    if (!PyArg_ParseTuple(tuple, "iiiddy#", &into->series, &kind, &relative, &value, &into->piece.weight, &text, &length))
        return -1;
    into->piece.kind = (uint8_t)kind;
    into->piece.relative = (uint8_t)relative;
    if (kind == UNIQUE) {
        memcpy(*members, text, (size_t)length);
        into->piece.member = *members;
        into->piece.length = (uint32_t)length;
        *members += length;
    } else
        into->piece.value = value;
    return 0;
}

/* Let parser.py read a line: how many bad pieces are in it, and what the others do. */
static void resolve_line(Intake *self, const run *r, odd_line *odd) {
    PyObject *found = PyObject_CallMethod(self->owner, "_read", "y#", r->line, (Py_ssize_t)r->length), *list;
    Py_ssize_t members_length = 0, count;
    char *members;
    if (!found || !PyArg_ParseTuple(found, "O!I", &PyList_Type, &list, &odd->bad))
        goto fail;
    count = PyList_GET_SIZE(list);
    for (Py_ssize_t i = 0; i < count; i++)
        members_length += PyBytes_GET_SIZE(PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 5));
    odd->effects = malloc((size_t)count * sizeof *odd->effects + (size_t)members_length + 1);
    if (!odd->effects) {
        PyErr_NoMemory();
        goto fail;
    }
    members = (char *)(odd->effects + count);
    for (; odd->count < count; odd->count++)
        if (effect_from(PyList_GET_ITEM(list, odd->count), &odd->effects[odd->count], &members) < 0)
            goto fail;
    Py_DECREF(found);
    return;
fail:
    PyErr_WriteUnraisable(self->owner);
    Py_XDECREF(found);
}

static void resolve(Intake *self) {
    for (uint32_t i = 0; i < self->run_count; i++)
        if (self->runs[i].series == NOT_FOUND)
            resolve_spelling(self, &self->runs[i]);
        else if (self->runs[i].series == ODD_LINE)
            resolve_line(self, &self->runs[i], &self->odd[i]);
    tell(self, "_after_questions");
}

/* -- applying; without the interpreter lock, with the mutex */

/* Each step asks for the memory of the next: the place of a key, its bytes, the series, and what the series holds. */
static void look_up(Intake *self) {
    table *t = &self->table;
    for (uint32_t i = 0; i < self->run_count; i++) {
        run *r = &self->runs[i];
        if (r->series == ODD_LINE)
            continue;
        r->place = next_place(t, (uint32_t)r->hash, r->hash);
        if (t->spellings[r->place].series != NOT_FOUND)
            __builtin_prefetch(t->bytes + t->spellings[r->place].at);
    }
    for (uint32_t i = 0; i < self->run_count; i++) {
        run *r = &self->runs[i];
        if (r->series == ODD_LINE)
            continue;
        r->series = find_series(t, &r->written, r->hash, r->place);
        if (r->series >= 0)
            __builtin_prefetch(&t->series[r->series], 1);
        else if (r->series == NOT_FOUND)
            self->questions++;
    }
}

static void apply(Intake *self, int32_t series, const piece *p) {
    if (series >= 0)
        apply_piece(&self->table, (uint32_t)series, p);
    else if (series <= REFUSED && series > REFUSED - 8)
        self->table.refused[REFUSED - series]++;
    else
        self->table.no_memory++;
}

static void apply_all(Intake *self) {
    const series *series = self->table.series;
    for (uint32_t i = 0; i < self->run_count; i++) {
        const run *r = &self->runs[i], *next = r + AHEAD;
        if (i + AHEAD < self->run_count && next->series >= 0 && next->written.kind != COUNTER)
            __builtin_prefetch(series[next->series].sketch, 1);
        if (r->series == ODD_LINE) {
            const odd_line *odd = &self->odd[i];
            self->bad += odd->bad;
            for (uint32_t each = 0; each < odd->count; each++)
                apply(self, odd->effects[each].series, &odd->effects[each].piece);
        } else
            for (uint32_t each = 0; each < r->count; each++)
                apply(self, r->series, &self->pieces[r->first + each]);
    }
}

/* Give everything that was read its effect. */
static void finish(Intake *self) {
    table *t = &self->table;
    look_up(self);
    if (self->questions) {
        PyEval_RestoreThread(self->released);
        resolve(self);
        self->released = PyEval_SaveThread();
    }
    pthread_mutex_lock(&t->mutex);
    apply_all(self);
    t->packets += self->packets;
    t->lines += self->lines;
    t->events += self->events;
    t->service_checks += self->service_checks;
    pthread_mutex_unlock(&t->mutex);
    if (self->questions)
        for (uint32_t i = 0; i < self->run_count; i++)
            if (self->runs[i].series == ODD_LINE)
                free(self->odd[i].effects);
    self->run_count = self->piece_count = self->questions = 0;
    self->packets = self->lines = self->events = self->service_checks = 0;
}

/* -- reading; without the interpreter lock */

static run *next_run(Intake *self, const char *at, const char *end) {
    run *r = &self->runs[self->run_count++];
    r->line = at;
    r->length = (uint32_t)(end - at);
    return r;
}

/* Cut a line's pieces into runs of one kind. */
static void add_runs(Intake *self, const line *l, const char *at, const char *end) {
    for (int i = 0; i < l->count;) {
        run *r = next_run(self, at, end);
        uint8_t kind = l->pieces[i].kind;
        r->written = (written){l->key, l->tags, l->key_length, l->tags_length, kind};
        r->first = self->piece_count + (uint32_t)i;
        for (r->count = 0; i < l->count && l->pieces[i].kind == kind; i++)
            r->count++;
        r->hash = spelling_hash(&self->table, &r->written);
        r->series = NOT_FOUND;
        __builtin_prefetch(&self->table.spellings[(uint32_t)r->hash & self->table.mask]);
    }
    self->piece_count += (uint32_t)l->count;
}

static void add_odd(Intake *self, const char *at, const char *end) {
    next_run(self, at, end)->series = ODD_LINE;
    self->odd[self->run_count - 1] = (odd_line){0};
    self->questions++;
}

/* Read whole lines; the bytes must stay until finish(). */
static void read_lines(Intake *self, const char *at, const char *end) {
    line l;
    for (; at < end; at++) {
        const char *feed = memchr(at, '\n', (size_t)(end - at)), *stop = feed ? feed : end;
        if (self->run_count + MOST_PIECES > RUNS || self->piece_count + MOST_PIECES > PIECES)
            finish(self);
        l.pieces = self->pieces + self->piece_count;
        switch (read_line(at, stop, self->table.c_locale, &l)) {
        case PLAIN:
            add_runs(self, &l, at, stop);
            break;
        case ODD:
            add_odd(self, at, stop);
            break;
        case EVENT:
            self->events++;
            break;
        case SERVICE_CHECK:
            self->service_checks++;
            break;
        case EMPTY:
            self->lines--;
            break;
        }
        self->lines++;
        at = stop;
    }
}

/* Let the owner do what it wants to do before a batch. */
static void begin(Intake *self) {
    if (__atomic_exchange_n(&self->interrupted, 0, __ATOMIC_ACQ_REL)) {
        PyEval_RestoreThread(self->released);
        tell(self, "_before_batch");
        self->released = PyEval_SaveThread();
    }
}

static PyObject *intake_interrupt(Intake *self, PyObject *Py_UNUSED(ignored)) {
    __atomic_store_n(&self->interrupted, 1, __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

static PyObject *intake_feed(Intake *self, PyObject *chunks) {
    PyObject *held = PySequence_Tuple(chunks);
    Py_ssize_t count;
    if (!held)
        return NULL;
    count = PyTuple_GET_SIZE(held);
    for (Py_ssize_t i = 0; i < count; i++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(held, i))) {
            Py_DECREF(held);
            return PyErr_Format(PyExc_TypeError, "a chunk is no bytes");
        }
    self->released = PyEval_SaveThread();
    begin(self);
    self->packets += (uint64_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *chunk = PyTuple_GET_ITEM(held, i);
        read_lines(self, PyBytes_AS_STRING(chunk), PyBytes_AS_STRING(chunk) + PyBytes_GET_SIZE(chunk));
    }
    finish(self);
    PyEval_RestoreThread(self->released);
    Py_DECREF(held);
    Py_RETURN_NONE;
}

/* -- a socket */

static int prepare_messages(Intake *self) {
    if (self->messages)
        return 0;
    self->messages = calloc(MESSAGES, sizeof *self->messages);
    self->places = calloc(2 * MESSAGES, sizeof *self->places);
    self->usual = malloc((size_t)MESSAGES * USUAL);
    self->rest = malloc((size_t)MESSAGES * (LONGEST_DATAGRAM - USUAL));
    self->whole = malloc(LONGEST_DATAGRAM);
    if (!self->messages || !self->places || !self->usual || !self->rest || !self->whole)
        return -1;
    for (int i = 0; i < MESSAGES; i++) {
        struct iovec *place = self->places + 2 * i;
        place[0] = (struct iovec){self->usual + (size_t)i * USUAL, USUAL};
        place[1] = (struct iovec){self->rest + (size_t)i * (LONGEST_DATAGRAM - USUAL), LONGEST_DATAGRAM - USUAL};
        self->messages[i].msg_hdr.msg_iov = place;
        self->messages[i].msg_hdr.msg_iovlen = 2;
    }
    return 0;
}

static void read_datagram(Intake *self, int number) {
    uint32_t size = self->messages[number].msg_len;
    const char *at = self->places[2 * number].iov_base;
    if (size <= USUAL) {
        read_lines(self, at, at + size);
        return;
    }
    finish(self);
    memcpy(self->whole, at, USUAL);
    memcpy(self->whole + USUAL, self->places[2 * number + 1].iov_base, size - USUAL);
    read_lines(self, self->whole, self->whole + size);
    finish(self);
}

/* Receive what is there, up to a batch; return how many datagrams, and -1 with errno. */
static int receive_batch(Intake *self, int socket) {
    struct timespec now;
    int count = recvmmsg(socket, self->messages, MESSAGES, MSG_DONTWAIT, NULL);
    if (count <= 0)
        return count;
    begin(self);
    clock_gettime(CLOCK_REALTIME, &now);
    self->seen = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    self->packets += (uint64_t)count;
    for (int i = 0; i < count; i++)
        read_datagram(self, i);
    finish(self);
    return count;
}

PyDoc_STRVAR(receive_doc, "receive($self, socket, wake, gather=0.0, /)\n--\n\n"
                          "Read datagrams of up to 64 KiB until wake, a file descriptor, is readable; with wake = -1 once, "
                          "and return how many. Whenever there was nothing left, what comes next has gather seconds, less "
                          "than one, to become many. Raises OSError.");

static PyObject *intake_receive(Intake *self, PyObject *args) {
    int socket, wake, count, error = 0;
    double gather = 0;
    if (!PyArg_ParseTuple(args, "ii|d", &socket, &wake, &gather))
        return NULL;
    struct timespec pause = {0, (long)(gather * 1e9)};
    if (prepare_messages(self) < 0)
        return PyErr_NoMemory();
    self->released = PyEval_SaveThread();
    for (;;) {
        struct pollfd polled[2] = {{socket, POLLIN, 0}, {wake, POLLIN, 0}};
        for (int batch = 0; (count = receive_batch(self, socket)) > 0 && wake >= 0 && batch < 16; batch++)
            ;
        error = count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR ? errno : 0;
        if (wake < 0 || error)
            break;
        if (poll(polled, 2, count > 0 ? 0 : -1) < 0 && errno != EINTR) {
            error = errno;
            break;
        }
        if (polled[1].revents)
            break;
        if (count <= 0 && pause.tv_nsec) /* to be woken for each datagram costs more than to read it */
            nanosleep(&pause, NULL);
    }
    PyEval_RestoreThread(self->released);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(count > 0 ? count : 0);
}

/* -- collecting */

static PyObject *whole_object(whole_number whole) {
    PyObject *high, *low, *bits, *shifted, *number = NULL;
    if (whole == (int64_t)whole)
        return PyLong_FromLongLong((int64_t)whole);
    high = PyLong_FromLongLong((int64_t)(whole >> 64));
    low = PyLong_FromUnsignedLongLong((uint64_t)whole);
    bits = PyLong_FromLong(64);
    shifted = high && bits ? PyNumber_Lshift(high, bits) : NULL;
    if (shifted && low)
        number = PyNumber_Or(shifted, low);
    Py_XDECREF(high);
    Py_XDECREF(low);
    Py_XDECREF(bits);
    Py_XDECREF(shifted);
    return number;
}

static PyObject *gauge_object(Intake *self, const series *s) {
    PyObject *change, *args, *pair = s->real_kind ? Py_BuildValue("(di)", s->gauge.base, 0)
                                                  : Py_BuildValue("(Od)", Py_None, s->gauge.delta);
    if (!pair)
        return NULL;
    args = PyTuple_Pack(1, pair);
    Py_DECREF(pair);
    change = args ? PyTuple_Type.tp_new(self->gauge_change, args, NULL) : NULL;
    Py_XDECREF(args);
    return change;
}

static PyObject *set_object(const member_set *set) {
    PyObject *found = PyFrozenSet_New(NULL);
    for (uint32_t i = 0; found && set && set->members && i <= set->mask; i++) {
        PyObject *text;
        if (set->members[i].length == UINT32_MAX)
            continue;
        text = PyUnicode_DecodeUTF8(set->bytes + set->members[i].at, set->members[i].length, "surrogatepass");
        if (!text || PySet_Add(found, text) < 0)
            Py_CLEAR(found);
        Py_XDECREF(text);
    }
    return found;
}

static PyObject *value_object(Intake *self, series *s) {
    switch (s->kind) {
    case COUNTER: return s->real_kind ? PyFloat_FromDouble(s->real) : whole_object(s->whole);
    case GAUGE: return gauge_object(self, s);
    case UNIQUE: return set_object(s->set);
    }
    if (!s->sketch) {
        sketch none;
        sketch_init(&none, self->table.exact);
        return self->sketches->distribution(self->distribution, &none);
    }
    return self->sketches->distribution(self->distribution, s->sketch);
}

static PyObject *account_object(Intake *self) {
    const table *t = &self->table;
    return Py_BuildValue("KKKKKKKKKK", (unsigned long long)t->packets, (unsigned long long)t->lines,
                         (unsigned long long)t->aggregated, (unsigned long long)self->bad, (unsigned long long)t->events,
                         (unsigned long long)t->service_checks, (unsigned long long)t->refused[0],
                         (unsigned long long)t->refused[1], (unsigned long long)t->unique_full,
                         (unsigned long long)t->no_memory);
}

static PyObject *intake_account(Intake *self, PyObject *Py_UNUSED(ignored)) {
    Intake copy;
    Py_BEGIN_ALLOW_THREADS;
    pthread_mutex_lock(&self->table.mutex);
    copy.table = self->table;
    copy.bad = self->bad;
    pthread_mutex_unlock(&self->table.mutex);
    Py_END_ALLOW_THREADS;
    return account_object(&copy);
}

PyDoc_STRVAR(collect_doc, "collect($self)\n--\n\nReturn what is new since the last time, as a dict for each kind, and the "
                          "account at this moment.");

static PyObject *intake_collect(Intake *self, PyObject *Py_UNUSED(ignored)) {
    Intake *copy = malloc(sizeof *copy);
    taken *all = NULL;
    uint32_t count = 0, done = 0;
    PyObject *dicts[KINDS] = {NULL}, *account, *result = NULL;
    if (!copy)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    pthread_mutex_lock(&self->table.mutex);
    all = malloc((self->table.touched_count + 1) * sizeof *all);
    if (all)
        count = take_touched(&self->table, all);
    copy->table = self->table;
    copy->bad = self->bad;
    pthread_mutex_unlock(&self->table.mutex);
    Py_END_ALLOW_THREADS;
    account = account_object(copy);
    free(copy);
    if (!all) {
        Py_XDECREF(account);
        return PyErr_NoMemory();
    }
    for (int kind = 0; kind < KINDS; kind++)
        if (!(dicts[kind] = PyDict_New()))
            goto done;
    for (done = 0; done < count; done++) {
        PyObject *value = value_object(self, &all[done].was);
        if (!value || PyDict_SetItem(dicts[all[done].was.kind], self->keys[all[done].series], value) < 0) {
            Py_XDECREF(value);
            goto done;
        }
        Py_DECREF(value);
        free_value(&all[done].was);
        if (self->table.series[all[done].series].dying && !self->table.series[all[done].series].touched)
            free_series(self, all[done].series);
    }
    if (account)
        result = Py_BuildValue("OOOOOO", dicts[COUNTER], dicts[TIMER], dicts[HISTOGRAM], dicts[GAUGE], dicts[UNIQUE], account);
done:
    for (; done < count; done++)
        free_value(&all[done].was);
    free(all);
    Py_XDECREF(account);
    for (int kind = 0; kind < KINDS; kind++)
        Py_XDECREF(dicts[kind]);
    return result;
}

/* -- forgetting; by the owner, with the interpreter lock */

static int is_kept(const table *t, int32_t number) {
    return number >= 0 && !t->series[number].dying && !t->series[number].overflow;
}

PyDoc_STRVAR(sweep_doc, "sweep($self, forgotten, overflow, /)\n--\n\nForget the series (kind, key) and all spellings of "
                        "them, those that were refused, and those of the overflow series.");

static PyObject *intake_sweep(Intake *self, PyObject *args) {
    PyObject *forgotten, *fast;
    if (!PyArg_ParseTuple(args, "O", &forgotten) || !(fast = PySequence_Fast(forgotten, "must be a sequence")))
        return NULL;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        int kind;
        PyObject *key;
        uint32_t at;
        if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(fast, i), "iU", &kind, &key)) {
            Py_DECREF(fast);
            return NULL;
        }
        at = key_place(self, kind, key, PyObject_Hash(key));
        if (self->by_key[at] != UINT32_MAX)
            self->table.series[self->by_key[at]].dying = 1;
    }
    Py_DECREF(fast);
    if (rebuild_spellings(&self->table, is_kept) < 0)
        return PyErr_NoMemory();
    for (uint32_t number = 0; number < self->table.count; number++)
        if (self->keys[number] && self->table.series[number].dying && !self->table.series[number].touched)
            free_series(self, number);
    if (grow_by_key(self, self->by_key_mask + 1) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* -- the type and the module */

/* What the interpreter lock does elsewhere: one method of an intake at a time, but where it waits or computes for long. */
#if PY_VERSION_HEX >= 0x030D0000
#define ONE_AT_A_TIME(self) Py_BEGIN_CRITICAL_SECTION(self)
#define DONE Py_END_CRITICAL_SECTION()
#else
#define ONE_AT_A_TIME(self) {
#define DONE }
#endif

#define METHOD(name)                                                                                                   \
    static PyObject *name##_alone(Intake *self, PyObject *argument) {                                                  \
        PyObject *result;                                                                                              \
        ONE_AT_A_TIME(self);                                                                                           \
        result = name(self, argument);                                                                                 \
        DONE;                                                                                                          \
        return result;                                                                                                 \
    }
METHOD(intake_series)
METHOD(intake_collect)
METHOD(intake_account)
METHOD(intake_look_up)
METHOD(intake_remember)
METHOD(intake_sweep)

static PyObject *intake_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Intake *self;
    unsigned int exact, members, spellings;
    unsigned long long seed;
    PyObject *owner, *distribution, *gauge_change;
    const sketch_api *sketches;
    if (kwargs && PyDict_GET_SIZE(kwargs))
        return PyErr_Format(PyExc_TypeError, "Intake() takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "OIIIKO!O!", &owner, &exact, &members, &spellings, &seed, &PyType_Type,
                          &distribution, &PyType_Type, &gauge_change))
        return NULL;
    if (!(sketches = PyCapsule_Import(SKETCH_API, 0)))
        return NULL;
    if (!(self = (Intake *)type->tp_alloc(type, 0)))
        return NULL;
    pthread_mutex_init(&self->table.mutex, NULL);
    self->sketches = sketches;
    self->table.exact = exact;
    self->table.most_members = members;
    self->table.seed = seed;
    self->most_spellings = spellings;
    self->owner = Py_NewRef(owner);
    self->distribution = (PyTypeObject *)Py_NewRef(distribution);
    self->gauge_change = (PyTypeObject *)Py_NewRef(gauge_change);
    self->table.c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!self->table.c_locale || rebuild_spellings(&self->table, NULL) < 0 ||
        grow_by_key(self, 1024) < 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static int intake_traverse(Intake *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->distribution);
    Py_VISIT(self->gauge_change);
    return 0;
}

static int intake_clear(Intake *self) {
    Py_CLEAR(self->owner);
    Py_CLEAR(self->distribution);
    Py_CLEAR(self->gauge_change);
    return 0;
}

static void intake_dealloc(Intake *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    intake_clear(self);
    for (uint32_t i = 0; i < self->table.count; i++)
        free_value(&self->table.series[i]);
    for (uint32_t i = 0; i < self->keys_room; i++)
        Py_XDECREF(self->keys[i]);
    if (self->table.c_locale)
        freelocale(self->table.c_locale);
    pthread_mutex_destroy(&self->table.mutex);
    free(self->table.series);
    free(self->table.free_series);
    free(self->table.touched);
    free(self->table.spellings);
    free(self->table.bytes);
    free(self->keys);
    free(self->by_key);
    free(self->messages);
    free(self->places);
    free(self->usual);
    free(self->rest);
    free(self->whole);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_seen(Intake *self, void *Py_UNUSED(closure)) { return PyFloat_FromDouble(self->seen); }

static PyMethodDef intake_methods[] = {
    {"feed", (PyCFunction)intake_feed, METH_O, "feed($self, chunks, /)\n--\n\nTake datagrams, or blocks of whole lines."},
    {"receive", (PyCFunction)intake_receive, METH_VARARGS, receive_doc},
    {"series", (PyCFunction)intake_series_alone, METH_VARARGS,
     "series($self, kind, key, overflow, /)\n--\n\nReturn the number of a series, made at first use."},
    {"collect", (PyCFunction)intake_collect_alone, METH_NOARGS, collect_doc},
    {"account", (PyCFunction)intake_account_alone, METH_NOARGS, "account($self)\n--\n\nReturn the account."},
    {"interrupt", (PyCFunction)intake_interrupt, METH_NOARGS,
     "interrupt($self)\n--\n\nAsk the owner before the next batch."},
    {"look_up", (PyCFunction)intake_look_up_alone, METH_VARARGS, look_up_doc},
    {"remember", (PyCFunction)intake_remember_alone, METH_VARARGS, remember_doc},
    {"sweep", (PyCFunction)intake_sweep_alone, METH_VARARGS, sweep_doc},
    {0},
};

static PyGetSetDef intake_getset[] = {
    {"seen", (getter)get_seen, NULL, "When datagrams were last received, in seconds since the epoch.", NULL},
    {0},
};

static PyType_Slot intake_slots[] = {
    {Py_tp_doc, "Lines to aggregates; see forwarder.intake."},
    {Py_tp_new, intake_new},
    {Py_tp_dealloc, intake_dealloc},
    {Py_tp_traverse, intake_traverse},
    {Py_tp_clear, intake_clear},
    {Py_tp_methods, intake_methods},
    {Py_tp_getset, intake_getset},
    {0, NULL},
};

static PyType_Spec intake_spec = {
    .name = "forwarder._intake.Intake",
    .basicsize = sizeof(Intake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = intake_slots,
};

static int exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &intake_spec, NULL);
    int failed = type ? PyModule_AddObjectRef(module, "Intake", type) : -1;
    Py_XDECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
#ifdef Py_mod_multiple_interpreters /* the state is the module's own, but nothing has been run to show that it is all */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef intake_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "forwarder._intake",
    .m_doc = "The C twin of the forwarder's intake.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__intake(void) { return PyModuleDef_Init(&intake_module); }
