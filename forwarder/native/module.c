/* The C implementation of the aggregator: datagrams and blocks of lines in, aggregates out, without an object per line.

   batch.h reads lines, looks series up and applies samples; table.h holds the series. Both run without the interpreter
   lock, which is the `lock` of table.h. This file contains the code that needs the interpreter: the type `Aggregator`, the
   questions of a batch, the collection's objects; and the code that receives datagrams.

   Lock order: no thread waits for the interpreter lock while it holds the table's mutex.

   The phase of the feeding thread, which changes only under the interpreter lock, tells other threads which calls are
   allowed: raw keys may change only while the feeding thread does not read them, and series may expire only while no batch
   holds their numbers. A call in the wrong phase raises RuntimeError. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "batch.h"
#include "sketch_api.h"
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

enum {
    MESSAGES = 128,           /* maximum number of datagrams of one system call */
    USUAL = 2048,             /* bytes of a datagram in the first part of its buffer */
    LONGEST_DATAGRAM = 65536, /* maximum number of bytes of a datagram */
};

#define OVERFLOW "overflow" /* the key of series for samples above a cap */

static const char *const KIND_NAMES[KINDS] = {"counter", "timer", "histogram", "gauge", "unique"};

enum phase {
    IDLE,
    BEFORE_BATCH, /* a call of the owner, while no batch holds a series */
    ASKING,       /* a call of the owner during a batch */
    READING,      /* without the interpreter lock */
};

/* The buffers of datagrams. Each has two parts, so that the first parts, enough for most datagrams, are close together. */
typedef struct {
    struct mmsghdr messages[MESSAGES];
    struct iovec parts[MESSAGES][2];
    char usual[MESSAGES][USUAL], rest[MESSAGES][LONGEST_DATAGRAM - USUAL];
    char whole[LONGEST_DATAGRAM];
} receive_buffer;

/* A collection: the aggregates that were moved aside, and the objects of the first `done` of them. */
typedef struct {
    taken *all;
    uint32_t count, done;
    account account;
    PyObject *dicts[KINDS];
    PyObject *value; /* the object of the next one, which already owns the sketch, or NULL */
} collection;

typedef struct {
    PyObject_HEAD
    table table;
    batch batch;
    enum phase phase;
    PyObject *owner; /* the CAggregator, which answers questions */
    PyObject *kinds[KINDS]; /* names of the kinds in the registry */
    int interrupted; /* call the owner before the next batch */
    PyTypeObject *distribution, *gauge_change;
    const sketch_api *sketches;
    collection *unfinished; /* a collection that ran out of memory; the next call continues it */
    receive_buffer *received;
    Py_buffer members; /* the array('q') in which C and Python count the bytes of members */
    double seen;
    PyThreadState *released;
} Aggregator;

/* -- phases; with the interpreter lock */

static int wrong_phase(const char *call) {
    PyErr_Format(PyExc_RuntimeError, "%s() is not possible while a batch is fed", call);
    return -1;
}

/* Release the interpreter lock to read, and acquire it again. */
static void start_reading(Aggregator *self) {
    self->phase = READING;
    self->released = PyEval_SaveThread();
}

static void stop_reading(Aggregator *self, enum phase phase) {
    PyEval_RestoreThread(self->released);
    self->phase = phase;
}

/* -- arguments */

static int kind_from(long kind) {
    if (kind >= 0 && kind < KINDS)
        return 0;
    PyErr_Format(PyExc_ValueError, "not the number of a kind: %ld", kind);
    return -1;
}

/* Convert a bound; a larger one is the largest that fits. */
static int count_from(PyObject *number, uint32_t most, uint32_t *count) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow < 0 || (!overflow && value < 0)) {
        PyErr_Format(PyExc_ValueError, "must not be negative: %S", number);
        return -1;
    }
    *count = overflow || value > most ? most : (uint32_t)value;
    return 0;
}

/* The hash of a key of a series; it is an exact str, so no Python code runs. */
static uint64_t key_hash(PyObject *key) { return (uint64_t)PyObject_Hash(key); }

static int same_key(const void *one, const void *other) {
    return !PyUnicode_Compare((PyObject *)one, (PyObject *)other);
}

static int key_from(PyObject *key) {
    if (PyUnicode_CheckExact(key))
        return 0;
    PyErr_Format(PyExc_TypeError, "the key of a series must be a str, not %R", key);
    return -1;
}

/* -- called by the owner */

/* Return the number of a series, which is created at first use, or NOT_FOUND if out of memory. */
static int32_t number_of(Aggregator *self, int kind, PyObject *key, int overflow) {
    uint64_t hash = key_hash(key);
    int32_t number = series_of_key(&self->table, kind, key, hash);
    if (number == NOT_FOUND && (number = add_series(&self->table, kind, Py_NewRef(key), hash, overflow)) == NOT_FOUND)
        Py_DECREF(key);
    return number;
}

PyDoc_STRVAR(series_doc, "series($self, kind, key, overflow, /)\n--\n\nReturn the number of a series, created at first use.");

static PyObject *aggregator_series(Aggregator *self, PyObject *args) {
    int kind, overflow;
    int32_t number;
    PyObject *key;
    if (!PyArg_ParseTuple(args, "iOp", &kind, &key, &overflow) || kind_from(kind) < 0 || key_from(key) < 0)
        return NULL;
    if (self->phase == READING && wrong_phase("series") < 0)
        return NULL;
    number = number_of(self, kind, key, overflow);
    return number == NOT_FOUND ? PyErr_NoMemory() : PyLong_FromLong(number);
}

static int written_from(const char *key, Py_ssize_t length, int kind, written *w) {
    if (kind_from(kind) < 0)
        return -1;
    if (length > LONGEST_RAW_KEY) {
        PyErr_Format(PyExc_ValueError, "a key of %zd bytes is too long", length);
        return -1;
    }
    *w = (written){key, key, (uint32_t)length, 0, (uint8_t)kind};
    return 0;
}

/* Return true if `series` is a series of this kind, or a refusal. */
static int may_mean(const table *t, long series, int kind) {
    if (series < 0)
        return series <= REFUSED && series > REFUSED - CAUSES;
    return is_series(t, series) && t->series[series].kind == kind && !t->series[series].expired;
}

PyDoc_STRVAR(look_up_doc, "look_up($self, kind, key, /)\n--\n\nReturn the cached number of a raw key that includes its "
                          "tags, or -1.");

static PyObject *aggregator_look_up(Aggregator *self, PyObject *args) {
    written w;
    int kind;
    const char *key;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "iy#", &kind, &key, &length) || written_from(key, length, kind, &w) < 0)
        return NULL;
    if (self->phase == READING && wrong_phase("look_up") < 0)
        return NULL;
    return PyLong_FromLong(find_series(&self->table, &w, raw_key_hash(&self->table, &w)));
}

PyDoc_STRVAR(remember_doc, "remember($self, kind, key, series, /)\n--\n\nCache the number of a raw key, unless it has one.");

static PyObject *aggregator_remember(Aggregator *self, PyObject *args) {
    written w;
    int kind;
    long series;
    const char *key;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "iy#l", &kind, &key, &length, &series) || written_from(key, length, kind, &w) < 0)
        return NULL;
    if (self->phase == READING && wrong_phase("remember") < 0)
        return NULL;
    if (!may_mean(&self->table, series, kind))
        return PyErr_Format(PyExc_ValueError, "no series of kind %d: %ld", kind, series);
    uint64_t hash = raw_key_hash(&self->table, &w);
    if (find_series(&self->table, &w, hash) == NOT_FOUND)
        add_raw_key(&self->table, &w, hash, (int32_t)series); /* if out of memory, it is asked again */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(expire_doc, "expire($self, expired, /)\n--\n\nMark the series (kind, key) as expired. Forget all their raw keys, "
                         "refused ones, and those of overflow series.");

static PyObject *aggregator_expire(Aggregator *self, PyObject *expired) {
    PyObject *all = PySequence_Tuple(expired); /* a copy, which no other code can change */
    if (!all)
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all); i++) {
        int kind;
        PyObject *key, *pair = PyTuple_GET_ITEM(all, i);
        if (!PyTuple_Check(pair)) {
            PyErr_Format(PyExc_TypeError, "not a pair of kind and key: %R", pair);
            goto fail;
        }
        if (!PyArg_ParseTuple(pair, "iO", &kind, &key) || kind_from(kind) < 0 || key_from(key) < 0)
            goto fail;
        if (self->phase != IDLE && self->phase != BEFORE_BATCH && wrong_phase("expire") < 0)
            goto fail;
        expire(&self->table, kind, key, key_hash(key));
    }
    if (self->phase != IDLE && self->phase != BEFORE_BATCH && wrong_phase("expire") < 0)
        goto fail;
    forget_raw_keys(&self->table);
    Py_DECREF(all);
    Py_RETURN_NONE;
fail:
    if (self->phase == IDLE || self->phase == BEFORE_BATCH)
        forget_raw_keys(&self->table); /* of those that were marked */
    Py_DECREF(all);
    return NULL;
}

PyDoc_STRVAR(interrupt_doc, "interrupt($self)\n--\n\nCall the owner before the next batch.");

static PyObject *aggregator_interrupt(Aggregator *self, PyObject *Py_UNUSED(ignored)) {
    __atomic_store_n(&self->interrupted, 1, __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

/* -- questions; with the interpreter lock */

/* Call a method of the owner. Return its result; or report the exception, and return NULL. */
static PyObject *call_owner(Aggregator *self, const char *method, PyObject *argument) {
    PyObject *answer, *owner = Py_XNewRef(self->owner); /* NULL once the garbage collector has cleared this */
    if (!owner)
        return NULL;
    answer = argument ? PyObject_CallMethod(owner, method, "O", argument) : PyObject_CallMethod(owner, method, NULL);
    if (!answer)
        PyErr_WriteUnraisable(owner);
    Py_DECREF(owner);
    return answer;
}

/* Read the effect of one sample of a slow line. Return -1, with or without an exception, if it is invalid. */
static int effect_from(const table *t, PyObject *tuple, effect *into, char **members) {
    const char *text;
    Py_ssize_t length;
    int kind, relative;
    long series;
    double value, weight;
    if (!PyArg_ParseTuple(tuple, "lipddy#", &series, &kind, &relative, &value, &weight, &text, &length))
        return -1;
    if (kind_from(kind) < 0 || !may_mean(t, series, kind) || !isfinite(value) || !isfinite(weight))
        return -1;
    *into = (effect){(int32_t)series, {.kind = (uint8_t)kind, .relative = (uint8_t)relative, .weight = weight}};
    if (!(weight > 0) && !is_adjustment(&into->sample))
        return -1;
    if (kind == UNIQUE) {
        memcpy(*members, text, (size_t)length);
        into->sample.member = *members;
        into->sample.length = (uint32_t)length;
        *members += length;
    } else
        into->sample.value = value;
    return 0;
}

/* Read the answer for a slow line: a list of the effects of its valid samples, and the number of bad ones. */
static int answer_from(Aggregator *self, PyObject *found, answer *into) {
    PyObject *list, *all;
    Py_ssize_t count;
    size_t members_length = 0;
    Py_ssize_t bad;
    char *members;
    if (!PyTuple_Check(found) || !PyArg_ParseTuple(found, "O!n", &PyList_Type, &list, &bad) || bad < 0 || bad > UINT32_MAX)
        return -1;
    if (!(all = PyList_AsTuple(list))) /* a copy, which no other code can change */
        return -1;
    count = PyTuple_GET_SIZE(all);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *each = PyTuple_GET_ITEM(all, i);
        if (!PyTuple_Check(each) || PyTuple_GET_SIZE(each) != 6 || !PyBytes_Check(PyTuple_GET_ITEM(each, 5)))
            goto fail;
        members_length += (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(each, 5));
    }
    if (!(into->effects = malloc((size_t)count * sizeof *into->effects + members_length + 1)))
        goto fail;
    members = (char *)(into->effects + count);
    for (; into->count < count; into->count++)
        if (effect_from(&self->table, PyTuple_GET_ITEM(all, into->count), &into->effects[into->count], &members) < 0)
            goto fail;
    into->bad = (uint32_t)bad;
    Py_DECREF(all);
    return 0;
fail:
    Py_DECREF(all);
    return -1;
}

/* Return the question of a group: kind, key and tags of a raw key; or a slow line. */
static PyObject *question_object(const group *g) {
    if (g->series == SLOW_LINE)
        return PyBytes_FromStringAndSize(g->line, g->length);
    return Py_BuildValue("iy#y#", (int)g->written.kind, g->written.key, (Py_ssize_t)g->written.key_length,
                         g->written.tags, (Py_ssize_t)g->written.tags_length);
}

static int same_raw_key(const group *one, const group *other) {
    const written *w = &one->written, *v = &other->written;
    return one->hash == other->hash && w->kind == v->kind && w->key_length == v->key_length &&
           w->tags_length == v->tags_length && !memcmp(w->key, v->key, w->key_length) &&
           !memcmp(w->tags, v->tags, w->tags_length);
}

/* Return true if a key without tags is canonical as written: it has only characters that series.py keeps. */
static int is_name(const written *w) {
    static const char other[256] = {['-'] = 1, ['.'] = 1, ['='] = 1, ['_'] = 1};
    for (uint32_t i = 0; i < w->key_length; i++) {
        unsigned char character = (unsigned char)w->key[i], letter = character | 0x20;
        if (!other[character] && !is_digit((char)character) && (letter < 'a' || letter > 'z'))
            return 0;
    }
    return w->key_length && !w->tags_length;
}

static int asks(const group *g, int names) {
    if (g->series == NOT_FOUND)
        return !names || is_name(&g->written);
    return g->series == SLOW_LINE && !names;
}

/* Return (kind, name), an argument of the registry's admit_names(). */
static PyObject *name_object(Aggregator *self, const group *g) {
    PyObject *pair, *name = PyUnicode_New(g->written.key_length, 127);
    if (!name)
        return NULL;
    memcpy(PyUnicode_1BYTE_DATA(name), g->written.key, g->written.key_length);
    pair = PyTuple_Pack(2, self->kinds[g->written.kind], name);
    Py_DECREF(name);
    return pair;
}

/* Return the questions of a batch in the order of lines: only canonical names, or all that are left. Write to `asked` the
   index of each group's question, or GROUPS. There is one question for each raw key. If out of memory, report it and
   return NULL. */
static PyObject *questions_of(Aggregator *self, uint16_t *asked, int names) {
    enum { PLACES = 2 * GROUPS };
    batch *b = &self->batch;
    uint16_t first[PLACES]; /* by hash: the first group that asks for this raw key */
    PyObject *questions = PyList_New(0), *question;
    for (uint32_t i = 0; i < PLACES; i++)
        first[i] = GROUPS;
    for (uint32_t i = 0; questions && i < b->group_count; i++) {
        const group *g = &b->groups[i];
        asked[i] = GROUPS;
        if (!asks(g, names))
            continue;
        if (g->series == NOT_FOUND) {
            uint32_t at = (uint32_t)g->hash % PLACES;
            while (first[at] != GROUPS && !same_raw_key(&b->groups[first[at]], g))
                at = (at + 1) % PLACES;
            if (first[at] != GROUPS) {
                asked[i] = asked[first[at]];
                continue;
            }
            first[at] = (uint16_t)i;
        }
        asked[i] = (uint16_t)PyList_GET_SIZE(questions);
        question = names ? name_object(self, g) : question_object(g);
        if (!question || PyList_Append(questions, question) < 0)
            Py_CLEAR(questions);
        Py_XDECREF(question);
    }
    if (!questions)
        PyErr_WriteUnraisable((PyObject *)self);
    return questions;
}

/* Call a method of the owner with questions. Return its answers as a tuple, which cannot change; NULL if there are no
   questions or no answers. */
static PyObject *answers_to(Aggregator *self, const char *method, PyObject *questions) {
    PyObject *answers = questions && PyList_GET_SIZE(questions) ? call_owner(self, method, questions) : NULL;
    if (answers)
        Py_SETREF(answers, PyList_CheckExact(answers) ? PyList_AsTuple(answers) : NULL);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)self);
    return answers;
}

/* Resolve all canonical names with one call, if the registry admits all of them. Groups that are NOT_FOUND afterwards must
   be asked one by one. */
static void resolve_names(Aggregator *self) {
    batch *b = &self->batch;
    uint16_t asked[GROUPS];
    PyObject *names = questions_of(self, asked, 1), *keys = answers_to(self, "_admit", names);
    if (keys && PyTuple_GET_SIZE(keys) == PyList_GET_SIZE(names))
        for (uint32_t i = 0; i < b->group_count; i++) {
            group *g = &b->groups[i];
            PyObject *key = asked[i] == GROUPS ? NULL : PyTuple_GET_ITEM(keys, asked[i]);
            if (!key || !PyUnicode_CheckExact(key))
                continue;
            g->series = find_series(&self->table, &g->written, g->hash);
            if (g->series != NOT_FOUND) /* an earlier group had the same name */
                continue;
            g->series = number_of(self, g->written.kind, key, PyUnicode_CompareWithASCIIString(key, OVERFLOW) == 0);
            if (g->series != NOT_FOUND)
                add_raw_key(&self->table, &g->written, g->hash, g->series); /* if out of memory, it is asked again */
        }
    Py_XDECREF(names);
    Py_XDECREF(keys);
}

/* Store the answer of a group. If it is NULL or invalid, the samples of the group are counted as dropped. */
static void take_answer(Aggregator *self, uint32_t number, PyObject *found) {
    batch *b = &self->batch;
    group *g = &b->groups[number];
    if (g->series == SLOW_LINE) {
        answer *into = &b->answers[number];
        if (!found || answer_from(self, found, into) < 0) {
            free(into->effects);
            *into = (answer){.lost = 1};
        }
        if (PyErr_Occurred())
            PyErr_WriteUnraisable((PyObject *)self);
        return;
    }
    long series = found && PyLong_Check(found) ? PyLong_AsLong(found) : UNANSWERED;
    if (PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)self);
    if (!may_mean(&self->table, series, g->written.kind)) {
        g->series = UNANSWERED;
        return;
    }
    g->series = (int32_t)series;
    if (find_series(&self->table, &g->written, g->hash) == NOT_FOUND)
        add_raw_key(&self->table, &g->written, g->hash, g->series); /* if out of memory, it is asked again */
}

static void ask(batch *b) {
    Aggregator *self = (Aggregator *)((char *)b - offsetof(Aggregator, batch));
    uint16_t asked[GROUPS];
    PyObject *questions, *answers;
    Py_ssize_t count;
    stop_reading(self, ASKING);
    resolve_names(self);
    questions = questions_of(self, asked, 0);
    answers = answers_to(self, "_answer", questions);
    count = answers ? PyTuple_GET_SIZE(answers) : 0;
    for (uint32_t i = 0; i < b->group_count; i++)
        if (b->groups[i].series == NOT_FOUND || b->groups[i].series == SLOW_LINE)
            take_answer(self, i, count && asked[i] < count ? PyTuple_GET_ITEM(answers, asked[i]) : NULL);
    Py_XDECREF(questions);
    Py_XDECREF(answers);
    start_reading(self);
}

/* -- feeding */

/* Call the owner before a batch, if it has requested that. */
static void before_batch(Aggregator *self) {
    if (__atomic_exchange_n(&self->interrupted, 0, __ATOMIC_ACQ_REL)) {
        stop_reading(self, BEFORE_BATCH);
        Py_XDECREF(call_owner(self, "_before_batch", NULL));
        start_reading(self);
    }
}

PyDoc_STRVAR(feed_doc, "feed($self, chunks, /)\n--\n\nAggregate datagrams, or blocks of complete lines.");

static PyObject *aggregator_feed(Aggregator *self, PyObject *chunks) {
    PyObject *held = PySequence_Tuple(chunks);
    Py_ssize_t count;
    if (!held)
        return NULL;
    count = PyTuple_GET_SIZE(held);
    for (Py_ssize_t i = 0; i < count; i++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(held, i))) {
            PyErr_Format(PyExc_TypeError, "a chunk must be bytes, not %R", PyTuple_GET_ITEM(held, i));
            Py_DECREF(held);
            return NULL;
        }
    if (self->phase != IDLE) {
        Py_DECREF(held);
        wrong_phase("feed");
        return NULL;
    }
    start_reading(self);
    before_batch(self);
    self->batch.packets += (uint64_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *chunk = PyTuple_GET_ITEM(held, i);
        read_lines(&self->batch, PyBytes_AS_STRING(chunk), PyBytes_AS_STRING(chunk) + PyBytes_GET_SIZE(chunk));
    }
    finish(&self->batch);
    stop_reading(self, IDLE);
    Py_DECREF(held);
    Py_RETURN_NONE;
}

/* -- a socket */

static int prepare_to_receive(Aggregator *self) {
    receive_buffer *made;
    if (self->received)
        return 0;
    if (!(made = malloc(sizeof *made)))
        return -1;
    memset(made->messages, 0, sizeof made->messages);
    for (int i = 0; i < MESSAGES; i++) {
        made->parts[i][0] = (struct iovec){made->usual[i], USUAL};
        made->parts[i][1] = (struct iovec){made->rest[i], LONGEST_DATAGRAM - USUAL};
        made->messages[i].msg_hdr.msg_iov = made->parts[i];
        made->messages[i].msg_hdr.msg_iovlen = 2;
    }
    self->received = made;
    return 0;
}

static void read_datagram(Aggregator *self, int number) {
    receive_buffer *from = self->received;
    uint32_t size = from->messages[number].msg_len;
    if (size <= USUAL) {
        read_lines(&self->batch, from->usual[number], from->usual[number] + size);
        return;
    }
    finish(&self->batch);
    memcpy(from->whole, from->usual[number], USUAL);
    memcpy(from->whole + USUAL, from->rest[number], size - USUAL);
    read_lines(&self->batch, from->whole, from->whole + size);
    finish(&self->batch);
}

/* Receive up to a batch without waiting. Return the number of datagrams, or -1 with errno. */
static int receive_batch(Aggregator *self, int socket) {
    struct timespec now;
    int count = recvmmsg(socket, self->received->messages, MESSAGES, MSG_DONTWAIT, NULL);
    if (count <= 0)
        return count;
    before_batch(self);
    clock_gettime(CLOCK_REALTIME, &now);
    self->seen = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    self->batch.packets += (uint64_t)count;
    for (int i = 0; i < count; i++)
        read_datagram(self, i);
    finish(&self->batch);
    return count;
}

PyDoc_STRVAR(receive_doc, "receive($self, socket, wake, gather=0.0, /)\n--\n\n"
                          "Read datagrams of up to 64 KiB until the file descriptor wake is readable. With wake = -1, read "
                          "at most one batch, and return the number of datagrams. After the socket was empty, wait gather "
                          "seconds, less than one, for more datagrams. Raises OSError.");

static PyObject *aggregator_receive(Aggregator *self, PyObject *args) {
    int socket, wake, count, error = 0;
    double gather = 0;
    if (!PyArg_ParseTuple(args, "ii|d", &socket, &wake, &gather))
        return NULL;
    if (!(gather >= 0 && gather < 1))
        return PyErr_Format(PyExc_ValueError, "gather must be at least 0 and less than 1 second");
    struct timespec pause = {0, (long)(gather * 1e9)};
    if (self->phase != IDLE) {
        wrong_phase("receive");
        return NULL;
    }
    if (prepare_to_receive(self) < 0)
        return PyErr_NoMemory();
    start_reading(self);
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
        if (count <= 0 && pause.tv_nsec) /* waking up costs more than reading a datagram: gather several */
            nanosleep(&pause, NULL);
    }
    stop_reading(self, IDLE);
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

static PyObject *gauge_object(Aggregator *self, const series *s) {
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

static PyObject *value_object(Aggregator *self, series *s) {
    sketch none;
    switch (s->kind) {
    case COUNTER: return s->real_kind ? PyFloat_FromDouble(s->real) : whole_object(s->whole);
    case GAUGE: return gauge_object(self, s);
    case UNIQUE: return set_object(s->set);
    }
    sketch_init(&none, self->table.exact);
    return self->sketches->distribution(self->distribution, s->sketch ? s->sketch : &none);
}

static PyObject *account_object(const account *a) {
    return Py_BuildValue("KKKKKKKKKK", (unsigned long long)a->packets, (unsigned long long)a->lines,
                         (unsigned long long)a->aggregated, (unsigned long long)a->bad, (unsigned long long)a->events,
                         (unsigned long long)a->service_checks, (unsigned long long)a->refused[0],
                         (unsigned long long)a->refused[1], (unsigned long long)a->unique_full,
                         (unsigned long long)a->no_memory);
}

PyDoc_STRVAR(account_doc, "account($self)\n--\n\nReturn the counts.");

static PyObject *aggregator_account(Aggregator *self, PyObject *Py_UNUSED(ignored)) {
    account copy;
    Py_BEGIN_ALLOW_THREADS;
    pthread_mutex_lock(&self->table.mutex);
    copy = self->table.account;
    pthread_mutex_unlock(&self->table.mutex);
    Py_END_ALLOW_THREADS;
    return account_object(&copy);
}

static void collection_free(Aggregator *self, collection *c) {
    let_go(&self->table, c->all, c->count);
    free(c->all);
    Py_XDECREF(c->value);
    for (int kind = 0; kind < KINDS; kind++)
        Py_XDECREF(c->dicts[kind]);
    free(c);
}

/* Start a collection: move the new aggregates aside. If out of memory, return NULL, and nothing was moved. */
static collection *collection_start(Aggregator *self) {
    collection *c = calloc(1, sizeof *c);
    for (int kind = 0; c && kind < KINDS; kind++)
        if (!(c->dicts[kind] = PyDict_New()))
            goto fail;
    if (!c)
        goto fail;
    Py_BEGIN_ALLOW_THREADS;
    c->count = take_touched(&self->table, &c->all, &c->account);
    Py_END_ALLOW_THREADS;
    if (c->all)
        return c;
fail:
    if (c)
        collection_free(self, c);
    PyErr_NoMemory();
    return NULL;
}

static int collection_go_on(Aggregator *self, collection *c) {
    for (; c->done < c->count; c->done++) {
        taken *one = &c->all[c->done];
        if (!c->value && !(c->value = value_object(self, &one->was)))
            return -1;
        if (PyDict_SetItem(c->dicts[one->was.kind], self->table.keys[one->number].key, c->value) < 0)
            return -1;
        Py_CLEAR(c->value);
    }
    return 0;
}

PyDoc_STRVAR(collect_doc, "collect($self)\n--\n\nReturn the aggregates since the last call, as a dict for each kind, and the "
                          "counts that cover them. After a MemoryError, the next call continues.");

static PyObject *aggregator_collect(Aggregator *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *account, *result = NULL;
    collection *c;
    uint32_t at = 0;
    void *key;
    if (!self->distribution)
        return PyErr_Format(PyExc_RuntimeError, "the garbage collector has cleared this");
    c = self->unfinished;
    self->unfinished = NULL;
    if (!c && !(c = collection_start(self)))
        return NULL;
    account = collection_go_on(self, c) < 0 ? NULL : account_object(&c->account);
    if (account)
        result = Py_BuildValue("OOOOOO", c->dicts[COUNTER], c->dicts[TIMER], c->dicts[HISTOGRAM], c->dicts[GAUGE],
                               c->dicts[UNIQUE], account);
    Py_XDECREF(account);
    if (!result && !self->unfinished) {
        self->unfinished = c;
        return NULL;
    }
    collection_free(self, c);
    while ((key = release(&self->table, &at)))
        Py_DECREF((PyObject *)key);
    return result;
}

/* -- the type and the module */

static PyObject *aggregator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Aggregator *self;
    uint32_t exact, members, keys;
    unsigned long long seed;
    long long key_bytes, member_bytes;
    PyObject *owner, *given[3], *cell;
    PyTypeObject *distribution, *gauge_change;
    const sketch_api *sketches;
    if (kwargs && PyDict_GET_SIZE(kwargs))
        return PyErr_Format(PyExc_TypeError, "Aggregator() takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "OOOOKO!O!LOL", &owner, &given[0], &given[1], &given[2], &seed, &PyType_Type,
                          &distribution, &PyType_Type, &gauge_change, &key_bytes, &cell, &member_bytes))
        return NULL;
    if (key_bytes < 0 || member_bytes < 0)
        return PyErr_Format(PyExc_ValueError, "bytes must not be negative");
    if (count_from(given[0], INT32_MAX, &exact) < 0 || count_from(given[1], UINT32_MAX, &members) < 0 ||
        count_from(given[2], UINT32_MAX, &keys) < 0)
        return NULL;
    if (!(sketches = PyCapsule_Import(SKETCH_API, 0)))
        return NULL;
    if (!PyType_IsSubtype(gauge_change, &PyTuple_Type)) /* the other one is checked where it is used */
        return PyErr_Format(PyExc_TypeError, "not a type of named tuples: %R", gauge_change);
    if (!(self = (Aggregator *)type->tp_alloc(type, 0)))
        return NULL;
    if (PyObject_GetBuffer(cell, &self->members, PyBUF_CONTIG) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (self->members.itemsize != sizeof(int64_t) || self->members.len != 2 * sizeof(int64_t)) {
        Py_DECREF(self);
        return PyErr_Format(PyExc_ValueError, "not two numbers of 64 bits: %R", cell);
    }
    self->table.members = (member_share){self->members.buf, member_bytes};
    self->table.most_raw_key_bytes = (size_t)key_bytes;
    self->sketches = sketches;
    self->owner = Py_NewRef(owner);
    self->distribution = (PyTypeObject *)Py_NewRef(distribution);
    self->gauge_change = (PyTypeObject *)Py_NewRef(gauge_change);
    self->table.exact = exact;
    self->table.most_members = members;
    self->table.most_raw_keys = keys;
    self->table.seed = seed;
    self->table.same_key = same_key;
    self->batch.table = &self->table;
    self->batch.ask = ask;
    if (table_init(&self->table) < 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (int kind = 0; kind < KINDS; kind++)
        if (!(self->kinds[kind] = PyUnicode_InternFromString(KIND_NAMES[kind]))) {
            Py_DECREF(self);
            return NULL;
        }
    return (PyObject *)self;
}

static int aggregator_traverse(Aggregator *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->distribution);
    Py_VISIT(self->gauge_change);
    for (int kind = 0; self->unfinished && kind < KINDS; kind++)
        Py_VISIT(self->unfinished->dicts[kind]);
    if (self->unfinished)
        Py_VISIT(self->unfinished->value);
    return 0;
}

static int aggregator_clear(Aggregator *self) {
    Py_CLEAR(self->owner);
    Py_CLEAR(self->distribution);
    Py_CLEAR(self->gauge_change);
    return 0;
}

static void aggregator_dealloc(Aggregator *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    aggregator_clear(self);
    if (self->unfinished)
        collection_free(self, self->unfinished);
    for (int kind = 0; kind < KINDS; kind++)
        Py_XDECREF(self->kinds[kind]);
    for (uint32_t i = 0; i < self->table.count; i++)
        Py_XDECREF((PyObject *)self->table.keys[i].key);
    table_free(&self->table);
    if (self->members.obj)
        PyBuffer_Release(&self->members);
    free(self->received);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_key_bytes(Aggregator *self, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(raw_keys_use(&self->table));
}

static PyObject *get_seen(Aggregator *self, void *Py_UNUSED(closure)) { return PyFloat_FromDouble(self->seen); }

static PyMethodDef aggregator_methods[] = {
    {"feed", (PyCFunction)aggregator_feed, METH_O, feed_doc},
    {"receive", (PyCFunction)aggregator_receive, METH_VARARGS, receive_doc},
    {"series", (PyCFunction)aggregator_series, METH_VARARGS, series_doc},
    {"collect", (PyCFunction)aggregator_collect, METH_NOARGS, collect_doc},
    {"account", (PyCFunction)aggregator_account, METH_NOARGS, account_doc},
    {"interrupt", (PyCFunction)aggregator_interrupt, METH_NOARGS, interrupt_doc},
    {"look_up", (PyCFunction)aggregator_look_up, METH_VARARGS, look_up_doc},
    {"remember", (PyCFunction)aggregator_remember, METH_VARARGS, remember_doc},
    {"expire", (PyCFunction)aggregator_expire, METH_O, expire_doc},
    {0},
};

static PyGetSetDef aggregator_getset[] = {
    {"key_bytes", (getter)get_key_bytes, NULL, "How many bytes are reserved for raw keys.", NULL},
    {"seen", (getter)get_seen, NULL, "When datagrams were last received, in seconds since the epoch.", NULL},
    {0},
};

static PyType_Slot aggregator_slots[] = {
    {Py_tp_doc, "Lines to aggregates; see forwarder.aggregator."},
    {Py_tp_new, aggregator_new},
    {Py_tp_dealloc, aggregator_dealloc},
    {Py_tp_traverse, aggregator_traverse},
    {Py_tp_clear, aggregator_clear},
    {Py_tp_methods, aggregator_methods},
    {Py_tp_getset, aggregator_getset},
    {0, NULL},
};

static PyType_Spec aggregator_spec = {
    .name = "forwarder._aggregator.Aggregator",
    .basicsize = sizeof(Aggregator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = aggregator_slots,
};

static int exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &aggregator_spec, NULL);
    int failed = type ? PyModule_AddObjectRef(module, "Aggregator", type) : -1;
    Py_XDECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
#ifdef Py_mod_multiple_interpreters /* not tested with several interpreters */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef aggregator_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "forwarder._aggregator",
    .m_doc = "The C implementation of the forwarder's aggregator.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__aggregator(void) { return PyModuleDef_Init(&aggregator_module); }
