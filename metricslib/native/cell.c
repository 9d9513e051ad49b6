/* The type Cell: the C implementation of Cell in instruments/base.py, and the calls of the instruments.

   Any Python code that runs may use this cell: a method of a number, a destructor, or a callback of the garbage
   collector, which may run wherever an object is created. So after each such call, only owned references are used, and
   the fields of the cell are read again. Arguments are read before the cell is. */

#include "module.h"

#define FULL 512      /* as in instruments/base.py */
#define CHILDREN 4096 /* as in instruments/base.py */
#define LONGEST 256

/* -- numbers */

static int number_from(PyObject *object, number_value *value, uint8_t *kind) {
    int overflow = 0;
    if (PyFloat_CheckExact(object)) {
        value->real = PyFloat_AS_DOUBLE(object);
        *kind = REAL;
        return 1;
    }
    if (!PyLong_CheckExact(object))
        return 0;
    value->whole = PyLong_AsLongLongAndOverflow(object, &overflow);
    *kind = WHOLE;
    return !overflow;
}

static PyObject *number_object(number_value value, uint8_t kind) {
    if (kind == WHOLE)
        return PyLong_FromLongLong(value.whole);
    return kind == REAL ? PyFloat_FromDouble(value.real) : Py_NewRef(Py_None);
}

/* -- arguments */

/* Return the one argument of a call, by position or as `name`, or `otherwise`, if that is not NULL, without an argument. A
   borrowed reference. */
static PyObject *only_argument(const char *call, const char *name, PyObject *otherwise, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames) {
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs == 1 && !named)
        return args[0];
    if (nargs + named == 0 && otherwise)
        return otherwise;
    if (nargs + named != 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes one argument, %s, not %zd", call, name, nargs + named);
        return NULL;
    }
    if (!PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), name))
        return args[0];
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", call, PyTuple_GET_ITEM(kwnames, 0));
    return NULL;
}

/* -- the slow path: a list of pending values */

/* Return the list, which is created at first use. A new reference, because the cell may get another list. */
static PyObject *pending_of(Cell *self) {
    if (!self->pending) {
        PyObject *made = PyList_New(0); /* may run Python code, which may create the list */
        if (!made)
            return NULL;
        cell_lock(&self->cell);
        if (!self->pending) {
            self->pending = made;
            made = NULL;
        }
        cell_unlock(&self->cell);
        Py_XDECREF(made);
    }
    return Py_XNewRef(self->pending);
}

static Py_ssize_t pending_size(Cell *self) { return self->pending ? PyList_GET_SIZE(self->pending) : 0; }

/* Append a pending value, and fold if the list is full. */
static int put(Cell *self, PyObject *value) {
    PyObject *done, *pending;
    Py_ssize_t size;
    int failed;
    if (self->cell.shut & CELL_VOID)
        return 0;
    if (self->cell.shut & CELL_ASLEEP) {
        if (!(done = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_wake)))
            return -1;
        Py_DECREF(done);
    }
    if (!(pending = pending_of(self)))
        return -1;
    cell_close(&self->cell, CELL_PENDING);
    failed = PyList_Append(pending, value);
    size = PyList_GET_SIZE(pending);
    Py_DECREF(pending);
    if (failed || size <= FULL)
        return failed;
    if (!(done = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_fold)))
        return -1;
    Py_DECREF(done);
    return 0;
}

static PyObject *put_and_return(Cell *self, PyObject *value) {
    if (put(self, value) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -- calls of the instruments */

static PyObject *cell_inc(Cell *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *n;
    number_value value;
    uint8_t kind = WHOLE;
    if (nargs == 0 && (!kwnames || !PyTuple_GET_SIZE(kwnames))) {
        value.whole = 1;
        if (cell_count(&self->cell, value, kind))
            Py_RETURN_NONE;
        n = PyLong_FromLong(1); /* a small int, which is immortal or kept by the interpreter */
        if (!n)
            return NULL;
        PyObject *result = put_and_return(self, n);
        Py_DECREF(n);
        return result;
    }
    if (!(n = only_argument("inc", "n", NULL, args, nargs, kwnames)))
        return NULL;
    if (number_from(n, &value, &kind) && cell_count(&self->cell, value, kind))
        Py_RETURN_NONE;
    return put_and_return(self, n);
}

static PyObject *cell_set_value(Cell *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    number_value value;
    uint8_t kind;
    PyObject *object = only_argument("set", "value", NULL, args, nargs, kwnames);
    if (!object)
        return NULL;
    if (number_from(object, &value, &kind) && cell_set(&self->cell, value, kind))
        Py_RETURN_NONE;
    return put_and_return(self, object);
}

static PyObject *cell_change_by(Cell *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    number_value value = {.whole = 1};
    uint8_t kind = WHOLE;
    PyObject *n = NULL, *result;
    if (nargs || (kwnames && PyTuple_GET_SIZE(kwnames))) {
        if (!(n = only_argument("inc", "n", NULL, args, nargs, kwnames)))
            return NULL;
    }
    if ((!n || number_from(n, &value, &kind)) && cell_change(&self->cell, value, kind))
        Py_RETURN_NONE;
    n = n ? Py_NewRef(n) : PyLong_FromLong(1);
    if (!n)
        return NULL;
    result = PyObject_CallMethodOneArg((PyObject *)self, self->state->str_change, n);
    Py_DECREF(n);
    return result;
}

/* Give the cell an empty distribution, if it still has no state; return -1 with an exception. */
static int begin_distribution(Cell *self) {
    Samples *made;
    uint32_t limit;
    PyObject *exact, *owner = PyObject_GetAttr((PyObject *)self, self->state->str_owner);
    if (!owner)
        return -1;
    exact = PyObject_GetAttr(owner, self->state->str_exact);
    Py_DECREF(owner);
    if (!exact)
        return -1;
    if (limit_of(exact, &limit) < 0) {
        Py_DECREF(exact);
        return -1;
    }
    Py_DECREF(exact);
    if (!(made = samples_made(self->state->distribution, limit)))
        return -1;
    cell_lock(&self->cell);
    if (self->cell.base_kind == NOTHING && !self->cell.shut) {
        self->cell.base_kind = OBJECT;
        self->cell.base.object = made;
        made = NULL;
    }
    cell_unlock(&self->cell);
    Py_XDECREF(made);
    return 0;
}

/* Add a sample on the fast path. Return 0 if it is closed, and -1 with an exception. */
static int add_sample(Cell *self, double value) {
    cell *c = &self->cell;
    for (;;) {
        int done = 0, empty;
        cell_lock(c);
        empty = !c->shut && c->base_kind == NOTHING && self->state->distribution; /* NULL while the interpreter shuts down */
        if (!c->shut && c->base_kind == OBJECT && Py_TYPE((PyObject *)c->base.object) == self->state->distribution)
            done = sketch_add(&((Samples *)c->base.object)->sketch, value, 1) == 0;
        cell_unlock(c);
        if (!empty)
            return done;
        if (begin_distribution(self) < 0)
            return -1;
    }
}

static int seconds_to_milliseconds(double seconds, double *milliseconds) {
    *milliseconds = seconds * 1000.0;
    return seconds >= 0 && seconds < 1e300; /* the slow path checks other values */
}

int observe_duration(Cell *timer, double seconds) {
    double milliseconds;
    int done = seconds_to_milliseconds(seconds, &milliseconds) ? add_sample(timer, milliseconds) : 0;
    PyObject *object;
    if (done)
        return done < 0 ? -1 : 0;
    if (!(object = PyFloat_FromDouble(seconds)))
        return -1;
    done = put(timer, object);
    Py_DECREF(object);
    return done;
}

static PyObject *observed(Cell *self, PyObject *object, double value, int good) {
    if (good) {
        int done = add_sample(self, value);
        if (done < 0)
            return NULL;
        if (done)
            Py_RETURN_NONE;
    }
    return put_and_return(self, object);
}

static int real_from(PyObject *object, double *value) {
    number_value number;
    uint8_t kind;
    if (!number_from(object, &number, &kind))
        return 0;
    *value = kind == REAL ? number.real : (double)number.whole;
    return 1;
}

static PyObject *cell_observe_seconds(Cell *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    double value = 0;
    int good;
    PyObject *seconds = only_argument("observe", "seconds", NULL, args, nargs, kwnames);
    if (!seconds)
        return NULL;
    good = real_from(seconds, &value) && seconds_to_milliseconds(value, &value);
    return observed(self, seconds, value, good);
}

static PyObject *cell_observe_value(Cell *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    double value = 0;
    int good;
    PyObject *object = only_argument("observe", "value", NULL, args, nargs, kwnames);
    if (!object)
        return NULL;
    good = real_from(object, &value) && isfinite(value);
    return observed(self, object, value, good);
}

/* -- tags */

/* Return the key under which tagged() caches a result: the names of the tags, the values, and, because 1 == True, the types
   unless all values are strings. NULL without an exception if the value, or the text of its type, may change. */
static PyObject *way_of_writing(PyObject *const *values, PyObject *keys) {
    Py_ssize_t count = PyTuple_GET_SIZE(keys);
    int texts = 1;
    PyObject *way;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_CheckExact(values[i]))
            continue;
        if (!PyLong_CheckExact(values[i]) && !PyBool_Check(values[i]))
            return NULL;
        texts = 0;
    }
    if (!(way = PyTuple_New(1 + count * (texts ? 1 : 2))))
        return NULL;
    PyTuple_SET_ITEM(way, 0, Py_NewRef(keys));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(way, 1 + i, Py_NewRef(values[i]));
        if (!texts)
            PyTuple_SET_ITEM(way, 1 + count + i, Py_NewRef((PyObject *)Py_TYPE(values[i])));
    }
    return way;
}

static PyObject *children_of(Cell *self) {
    PyObject *children;
    cell_lock(&self->cell);
    children = self->children;
    Py_XINCREF(children);
    cell_unlock(&self->cell);
    if (children && !PyDict_CheckExact(children))
        Py_CLEAR(children);
    return children;
}

static void set_children(Cell *self, PyObject *children) {
    PyObject *before;
    cell_lock(&self->cell);
    before = self->children;
    self->children = Py_XNewRef(children);
    cell_unlock(&self->cell);
    Py_XDECREF(before);
}

/* Return the number of characters of the strings in a tuple. */
static Py_ssize_t characters(PyObject *tuple) {
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        if (PyUnicode_CheckExact(PyTuple_GET_ITEM(tuple, i)))
            count += PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(tuple, i));
    return count;
}

static int remember(Cell *self, PyObject *way, PyObject *child) {
    int failed = 0;
    PyObject *children;
    if (characters(way) + characters(PyTuple_GET_ITEM(way, 0)) > LONGEST)
        return 0;
    children = children_of(self);
    if (!children || PyDict_GET_SIZE(children) >= CHILDREN) {
        Py_XDECREF(children);
        if (!(children = PyDict_New()))
            return -1;
        set_children(self, children);
    }
    failed = PyDict_SetItem(children, way, child);
    Py_DECREF(children);
    return failed;
}

static PyObject *tagged_slowly(Cell *self, PyObject *const *values, PyObject *kwnames) {
    PyObject *child = NULL, *tags = PyDict_New();
    for (Py_ssize_t i = 0; tags && kwnames && i < PyTuple_GET_SIZE(kwnames); i++)
        if (PyDict_SetItem(tags, PyTuple_GET_ITEM(kwnames, i), values[i]) < 0)
            Py_CLEAR(tags);
    if (tags)
        child = PyObject_CallMethodOneArg((PyObject *)self, self->state->str_tagged_slowly, tags);
    Py_XDECREF(tags);
    return child;
}

static PyObject *cell_tagged(Cell *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *way = NULL, *child = NULL, *children;
    if (nargs)
        return PyErr_Format(PyExc_TypeError, "tagged() takes tags by keyword only, as in tagged(route='/search')");
    if (kwnames && !(way = way_of_writing(args, kwnames)) && PyErr_Occurred())
        return NULL;
    if (way && (children = children_of(self))) {
        child = Py_XNewRef(PyDict_GetItemWithError(children, way));
        Py_DECREF(children);
        if (!child && PyErr_Occurred())
            goto done;
    }
    if (!child && (child = tagged_slowly(self, args, kwnames)) && way && child != (PyObject *)self &&
        remember(self, way, child) < 0)
        Py_CLEAR(child);
done:
    Py_XDECREF(way);
    return child;
}

/* -- the methods of a cell that instruments use */

/* Import objects from Python modules that have been loaded meanwhile. Return -1 with an exception, also if they have wrong
   types. */
static int resolve(module_state *state) {
    static const char *const from[][2] = {
        {"metricslib.sketch", "Distribution"}, {"metricslib.window", "GaugeChange"}, {"metricslib.clock", "SystemClock"}};
    PyObject *found[3] = {NULL};
    int good = 1;
    if (state->system_clock)
        return 0;
    for (int i = 0; i < 3 && good; i++) {
        PyObject *module = PyImport_ImportModule(from[i][0]);
        good = module && (found[i] = PyObject_GetAttrString(module, from[i][1]));
        Py_XDECREF(module);
    }
    if (good) {
        Py_SETREF(found[2], PyObject_GetAttrString(found[2], "monotonic"));
        good = found[2] != NULL;
    }
    if (good && (!PyType_Check(found[0]) || !PyType_IsSubtype((PyTypeObject *)found[0], state->samples_type) ||
                 !PyType_Check(found[1]) || !PyType_IsSubtype((PyTypeObject *)found[1], &PyTuple_Type))) {
        PyErr_SetString(PyExc_TypeError, "metricslib's own types have been replaced");
        good = 0;
    }
    if (good && !state->system_clock) { /* Python code ran, and may have called this function */
        state->distribution = (PyTypeObject *)found[0];
        state->gauge_change = found[1];
        state->system_clock = found[2];
        return 0;
    }
    for (int i = 0; i < 3; i++)
        Py_XDECREF(found[i]);
    return good ? 0 : -1;
}

/* Set the state, and return the old one as an object, which the caller must release. */
static PyObject *exchange(Cell *self, number_value base, uint8_t base_kind, number_value delta, uint8_t delta_kind) {
    PyObject *before = self->cell.base_kind == OBJECT ? self->cell.base.object : NULL;
    self->cell.base = base;
    self->cell.base_kind = base_kind;
    self->cell.delta = delta;
    self->cell.delta_kind = delta_kind;
    return before;
}

static PyObject *open_cell(Cell *self, PyObject *live) {
    static const number_value none = {0};
    PyObject *pending, *lock, *children, *state;
    int is_live = PyObject_IsTrue(live);
    if (is_live < 0 || resolve(self->state) < 0)
        return NULL;
#ifdef CELL_ATOMIC
    atomic_flag_clear(&self->cell.busy); /* before a fork, a thread of the parent may have held it */
#endif
    state = exchange(self, none, NOTHING, none, NOTHING);
    pending = self->pending;
    lock = self->lock;
    children = self->children;
    self->pending = self->lock = self->children = NULL;
    self->cell.shut = is_live ? 0 : CELL_VOID;
    Py_XDECREF(state);
    Py_XDECREF(pending);
    Py_XDECREF(lock);
    Py_XDECREF(children);
    Py_RETURN_NONE;
}

/* Return the state as an object: None, a number, a GaugeChange, or the object itself. */
static PyObject *state_object(module_state *state, const cell *c) {
    PyObject *base, *delta, *pair, *change;
    if (c->delta_kind == NOTHING)
        return c->base_kind == OBJECT ? Py_NewRef((PyObject *)c->base.object) : number_object(c->base, c->base_kind);
    base = number_object(c->base, c->base_kind);
    delta = number_object(c->delta, c->delta_kind);
    pair = base && delta ? PyTuple_Pack(2, base, delta) : NULL;
    Py_XDECREF(base);
    Py_XDECREF(delta);
    if (!pair)
        return NULL;
    /* GaugeChange.__new__ is Python code, so that of tuple is called. */
    change = PyObject_CallMethod((PyObject *)&PyTuple_Type, "__new__", "OO", state->gauge_change, pair);
    Py_DECREF(pair);
    return change;
}

static int same_state(const cell *one, const cell *other) {
    return one->base_kind == other->base_kind && one->delta_kind == other->delta_kind &&
           one->base.whole == other->base.whole && one->delta.whole == other->delta.whole;
}

enum reading { LOOK, TAKE, TAKE_AT_ONCE };

/* Return the state as an object, and reset it if `how` takes it. Creating objects may run a callback of the garbage
   collector, which may change the state; then this is repeated. TAKE_AT_ONCE needs no lock, but returns NotImplemented if
   a fold may be under way; without the interpreter lock, that is always the case. */
static PyObject *read_state(Cell *self, enum reading how) {
    static const number_value none = {0};
    for (;;) {
        int same, folding;
        PyObject *object, *before = NULL;
        cell seen;
        cell_lock(&self->cell);
        seen = self->cell;
        if (seen.base_kind == OBJECT)
            Py_INCREF((PyObject *)seen.base.object);
        cell_unlock(&self->cell);
        object = state_object(self->state, &seen);
        if (seen.base_kind == OBJECT)
            Py_DECREF((PyObject *)seen.base.object);
        if (!object)
            return NULL;
        cell_lock(&self->cell);
#ifdef CELL_ATOMIC
        folding = 1;
#else
        folding = self->cell.shut & CELL_PENDING || pending_size(self);
#endif
        same = same_state(&seen, &self->cell);
        if (same && (how == TAKE || (how == TAKE_AT_ONCE && !folding)))
            before = exchange(self, none, NOTHING, none, NOTHING);
        cell_unlock(&self->cell);
        Py_XDECREF(before);
        if (same && !(how == TAKE_AT_ONCE && folding))
            return object;
        Py_DECREF(object);
        if (how == TAKE_AT_ONCE && folding)
            return Py_NewRef(Py_NotImplemented);
    }
}

static PyObject *take_state(Cell *self, PyObject *Py_UNUSED(ignored)) { return read_state(self, TAKE); }

static PyObject *take_state_at_once(Cell *self, PyObject *Py_UNUSED(ignored)) { return read_state(self, TAKE_AT_ONCE); }

/* Convert a number of values, or an index. A larger one becomes the largest possible one. -1 with an exception. */
static Py_ssize_t number_of_values(PyObject *number) {
    Py_ssize_t value = PyNumber_AsSsize_t(number, NULL);
    if (value >= 0 || (value == -1 && PyErr_Occurred()))
        return value;
    PyErr_SetString(PyExc_ValueError, "must not be negative");
    return -1;
}

/* Return the first `most` pending values in a new list. */
static PyObject *first_pending(Cell *self, Py_ssize_t most) {
    for (;;) {
        Py_ssize_t n = pending_size(self);
        PyObject *batch = PyList_New(n = n < most ? n : most); /* may run Python code, which may add, fold and drop values */
        if (!batch || n == 0)
            return batch;
        if (n <= pending_size(self)) {
            for (Py_ssize_t i = 0; i < n; i++)
                PyList_SET_ITEM(batch, i, Py_NewRef(PyList_GET_ITEM(self->pending, i)));
            return batch;
        }
        Py_DECREF(batch);
    }
}

static PyObject *begin_fold(Cell *self, PyObject *limit) {
    PyObject *state, *batch;
    Py_ssize_t most = number_of_values(limit);
    if (most < 0)
        return NULL;
    cell_close(&self->cell, CELL_PENDING);
    batch = first_pending(self, most);
    state = batch ? read_state(self, LOOK) : NULL;
    if (!state) {
        Py_XDECREF(batch);
        return NULL;
    }
    return Py_BuildValue("NN", state, batch);
}

/* Convert an object to a state. Any object except numbers and GaugeChange is kept as it is. */
static void parse_state(module_state *state, PyObject *object, cell *into) {
    into->base.whole = into->delta.whole = 0;
    into->base_kind = into->delta_kind = NOTHING;
    if (object == Py_None || number_from(object, &into->base, &into->base_kind))
        return;
    if (Py_TYPE(object) == (PyTypeObject *)state->gauge_change && PyTuple_GET_SIZE(object) == 2) {
        PyObject *base = PyTuple_GET_ITEM(object, 0), *delta = PyTuple_GET_ITEM(object, 1);
        into->base_kind = NOTHING;
        if ((base == Py_None || number_from(base, &into->base, &into->base_kind)) &&
            number_from(delta, &into->delta, &into->delta_kind))
            return;
        into->delta.whole = 0;
        into->delta_kind = NOTHING;
    }
    into->base_kind = OBJECT;
    into->base.object = Py_NewRef(object);
}

static PyObject *commit_fold(Cell *self, PyObject *const *args, Py_ssize_t nargs) {
    cell parsed;
    PyObject *before, *batch;
    Py_ssize_t taken;
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "_commit() takes a lock, a state and how many values are in it");
    if ((taken = number_of_values(args[2])) < 0)
        return NULL;
    if (self->lock != args[0])
        Py_RETURN_FALSE;
    if (!(batch = first_pending(self, taken))) /* released last */
        return NULL;
    if (self->lock != args[0]) {
        Py_DECREF(batch);
        Py_RETURN_FALSE;
    }
    if (self->pending && PyList_SetSlice(self->pending, 0, PyList_GET_SIZE(batch), NULL) < 0) {
        Py_DECREF(batch);
        return NULL;
    }
    parse_state(self->state, args[1], &parsed);
    cell_lock(&self->cell);
    before = exchange(self, parsed.base, parsed.base_kind, parsed.delta, parsed.delta_kind);
    if (!pending_size(self))
        self->cell.shut &= (uint8_t)~CELL_PENDING;
    cell_unlock(&self->cell);
    Py_DECREF(batch);
    Py_XDECREF(before);
    Py_RETURN_TRUE;
}

static PyObject *drop_pending(Cell *self, PyObject *index) {
    PyObject *dropped;
    Py_ssize_t at = number_of_values(index);
    if (at < 0)
        return NULL;
    if (at >= pending_size(self))
        Py_RETURN_FALSE;
    dropped = Py_NewRef(PyList_GET_ITEM(self->pending, at)); /* released after it was removed from the list */
    if (PyList_SetSlice(self->pending, at, at + 1, NULL) < 0) {
        Py_DECREF(dropped);
        return NULL;
    }
    Py_DECREF(dropped);
    Py_RETURN_TRUE;
}

static PyObject *fall_asleep(Cell *self, PyObject *Py_UNUSED(ignored)) {
    if (!(self->cell.shut & CELL_VOID))
        cell_close(&self->cell, CELL_ASLEEP);
    Py_RETURN_NONE;
}

static PyObject *end_sleep(Cell *self, PyObject *Py_UNUSED(ignored)) {
    cell_open(&self->cell, CELL_ASLEEP);
    Py_RETURN_NONE;
}

static PyObject *get_live(Cell *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(!(self->cell.shut & CELL_VOID));
}

static PyObject *get_sleeping(Cell *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->cell.shut & CELL_ASLEEP);
}

static PyObject *get_pending_count(Cell *self, void *Py_UNUSED(closure)) { return PyLong_FromSsize_t(pending_size(self)); }

static PyObject *get_lock(Cell *self, void *Py_UNUSED(closure)) {
    PyObject *threads, *lock, *made = NULL;
    if (!self->lock) {
        threads = PyImport_ImportModule("_thread");
        made = threads ? PyObject_CallMethod(threads, "allocate_lock", NULL) : NULL;
        Py_XDECREF(threads);
        if (!made)
            return NULL;
    }
    cell_lock(&self->cell);
    if (!self->lock) {
        self->lock = made;
        made = NULL;
    }
    lock = Py_NewRef(self->lock);
    cell_unlock(&self->cell);
    Py_XDECREF(made);
    return lock;
}

static int set_lock(Cell *self, PyObject *lock, void *Py_UNUSED(closure)) {
    PyObject *before;
    cell_lock(&self->cell);
    before = self->lock;
    self->lock = Py_XNewRef(lock);
    cell_unlock(&self->cell);
    Py_XDECREF(before);
    return 0;
}

static PyObject *get_children(Cell *self, void *Py_UNUSED(closure)) {
    PyObject *children = children_of(self);
    return children ? children : Py_NewRef(Py_None);
}

static int put_children(Cell *self, PyObject *children, void *Py_UNUSED(closure)) {
    set_children(self, children);
    return 0;
}

static PyObject *cell_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
    PyObject *module = PyType_GetModuleByDef(type, &speedups_module);
    Cell *self = module ? (Cell *)type->tp_alloc(type, 0) : NULL;
    if (self) {
        self->state = PyModule_GetState(module);
        self->cell.shut = CELL_VOID;
    }
    return (PyObject *)self;
}

static int cell_traverse(Cell *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pending);
    Py_VISIT(self->lock);
    Py_VISIT(self->children);
    Py_VISIT(self->now);
    if (self->cell.base_kind == OBJECT)
        Py_VISIT((PyObject *)self->cell.base.object);
    return 0;
}

static int cell_clear(Cell *self) {
    static const number_value none = {0};
    PyObject *state = exchange(self, none, NOTHING, none, NOTHING);
    Py_XDECREF(state);
    Py_CLEAR(self->pending);
    Py_CLEAR(self->lock);
    Py_CLEAR(self->children);
    Py_CLEAR(self->now);
    return 0;
}

static void cell_dealloc(Cell *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, cell_dealloc) /* for chains of cells, each the child of another */
    cell_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* The methods of classes of instruments, by the name in replaced_by(). The type Cell has none of them, because a counter,
   for example, must not have a method to observe seconds. ml_doc is the signature. method_of() appends the docstring of the
   Python method, in memory that is never freed, because all interpreters share the table. */
static struct {
    const char *name;
    PyMethodDef method;
    int described;
} class_methods[] = {
    {"count", {"inc", FAST_NAMED(cell_inc), "inc($self, n=1)\n--\n\n"}, 0},
    {"set_value", {"set", FAST_NAMED(cell_set_value), "set($self, value)\n--\n\n"}, 0},
    {"change_by", {"inc", FAST_NAMED(cell_change_by), "inc($self, n=1)\n--\n\n"}, 0},
    {"observe_seconds", {"observe", FAST_NAMED(cell_observe_seconds), "observe($self, seconds)\n--\n\n"}, 0},
    {"observe_value", {"observe", FAST_NAMED(cell_observe_value), "observe($self, value)\n--\n\n"}, 0},
    {"time", {"time", (PyCFunction)cell_time, METH_NOARGS, "time($self)\n--\n\n"}, 0},
    {"call", {"_call", FAST(cell_call), "_call($self, function, args, kwargs)\n--\n\n"}, 0},
    {"tagged", {"tagged", FAST_NAMED(cell_tagged), "tagged($self, /, **tags)\n--\n\n"}, 0},
};

static PyMethodDef cell_methods[] = {
    {"_put", (PyCFunction)put_and_return, METH_O, NULL},
    {"_open", (PyCFunction)open_cell, METH_O, NULL},
    {"_begin", (PyCFunction)begin_fold, METH_O, NULL},
    {"_commit", FAST(commit_fold), NULL},
    {"_take", (PyCFunction)take_state, METH_NOARGS, NULL},
    {"_take_at_once", (PyCFunction)take_state_at_once, METH_NOARGS, NULL},
    {"_drop", (PyCFunction)drop_pending, METH_O, NULL},
    {"_fall_asleep", (PyCFunction)fall_asleep, METH_NOARGS, NULL},
    {"_end_sleep", (PyCFunction)end_sleep, METH_NOARGS, NULL},
    {0},
};

/* Append the docstring to the signature, once. Return -1 if out of memory. */
static int describe(size_t i, const char *doc) {
    if (class_methods[i].described)
        return 0;
    const char *signature = class_methods[i].method.ml_doc;
    size_t size = strlen(signature) + strlen(doc) + 1;
    char *text = malloc(size);
    if (!text) {
        PyErr_NoMemory();
        return -1;
    }
    snprintf(text, size, "%s%s", signature, doc);
    class_methods[i].method.ml_doc = text;
    class_methods[i].described = 1;
    return 0;
}

PyObject *method_of(PyObject *module, PyObject *args) {
    module_state *state = PyModule_GetState(module);
    PyTypeObject *type;
    const char *name, *doc;
    if (!PyArg_ParseTuple(args, "O!ss", &PyType_Type, &type, &name, &doc))
        return NULL;
    if (PyType_IsSubtype(type, state->cell_type))
        for (size_t i = 0; i < sizeof class_methods / sizeof *class_methods; i++)
            if (!strcmp(class_methods[i].name, name))
                return describe(i, doc) < 0 ? NULL : PyDescr_NewMethod(type, &class_methods[i].method);
    return PyErr_Format(PyExc_TypeError, "there is no method %s for %R", name, type);
}

static PyGetSetDef cell_getset[] = {
    {"live", (getter)get_live, NULL,
     "True if values are kept, False if a filter or a cap excluded the series.", NULL},
    {"sleeping", (getter)get_sleeping, NULL, "True if the next value wakes the instrument.", NULL},
    {"_pending_count", (getter)get_pending_count, NULL, NULL, NULL},
    {"_lock", (getter)get_lock, (setter)set_lock, NULL, NULL},
    {"_children", (getter)get_children, (setter)put_children, NULL, NULL},
    {0},
};

static PyMemberDef cell_members[] = {
    {"_now", T_OBJECT, offsetof(Cell, now), 0, NULL},
    {0},
};

static PyType_Slot cell_slots[] = {
    {Py_tp_doc, "The values of one instrument: the C implementation of metricslib.instruments.base.Cell."},
    {Py_tp_new, cell_new},
    {Py_tp_dealloc, cell_dealloc},
    {Py_tp_traverse, cell_traverse},
    {Py_tp_clear, cell_clear},
    {Py_tp_methods, cell_methods},
    {Py_tp_getset, cell_getset},
    {Py_tp_members, cell_members},
    {0, NULL},
};

PyType_Spec cell_spec = {
    .name = "metricslib._speedups.Cell",
    .basicsize = sizeof(Cell),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = cell_slots,
};
