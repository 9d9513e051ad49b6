/* The types Span and Timed: the twins of what timer.py and decorators.py put around a block or a plain function.
   A part of _speedups.c. */

#ifndef METRICSLIB_TIMING_H
#define METRICSLIB_TIMING_H

/* Read the timer's clock, in seconds; -1 with an exception. It is read here only while it is the system's, and nobody has
   replaced time.perf_counter: so tools that do (freezegun) are honoured. */
static int read_clock(Cell *timer, double *seconds) {
    module_state *state = timer->state;
    PyObject *result;
    if (timer->now == state->system_clock && state->perf_counter &&
        PyDict_GetItemWithError(state->time_dict, state->str_perf_counter) == state->perf_counter) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *seconds = (double)((int64_t)now.tv_sec * 1000000000 + now.tv_nsec) / 1e9; /* as time.perf_counter does */
        return 0;
    }
    if (!timer->now) {
        PyErr_SetString(PyExc_AttributeError, "the timer has no clock");
        return -1;
    }
    if (!(result = PyObject_CallNoArgs(timer->now)))
        return -1;
    *seconds = PyFloat_AsDouble(result);
    Py_DECREF(result);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static int observe_duration(Cell *timer, double seconds) {
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

/* -- a timed block */

typedef struct {
    PyObject_HEAD
    Cell *timer;
    PyObject *tags; /* a dict, NULL without any */
    double start, end;
    uint8_t entered, ended, discarded;
} Span;

static PyObject *cell_time(Cell *self, PyObject *Py_UNUSED(ignored)) {
    Span *span = PyObject_GC_New(Span, self->state->span_type);
    if (!span)
        return NULL;
    /* Not tracked by the garbage collector until it has tags: before, it can be in no cycle. */
    span->timer = (Cell *)Py_NewRef(self);
    span->tags = NULL;
    span->start = span->end = 0;
    span->entered = span->ended = span->discarded = 0;
    return (PyObject *)span;
}

static PyObject *span_enter(Span *self, PyObject *Py_UNUSED(ignored)) {
    self->ended = 0;
    if (read_clock(self->timer, &self->start) < 0)
        return NULL;
    self->entered = 1;
    return Py_NewRef(self);
}

static double span_seconds(const Span *self) { return self->end > self->start ? self->end - self->start : 0; }

static PyObject *span_exit(Span *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs)) {
    int failed;
    Cell *timer = self->timer;
    if (read_clock(timer, &self->end) < 0)
        return NULL;
    self->ended = 1;
    if (self->discarded)
        Py_RETURN_NONE;
    if (!self->tags) {
        if (observe_duration(timer, span_seconds(self)) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *tagged = PyObject_GetAttr((PyObject *)timer, timer->state->str_tagged), *none = PyTuple_New(0);
    PyObject *child = tagged && none ? PyObject_Call(tagged, none, self->tags) : NULL;
    Py_XDECREF(tagged);
    Py_XDECREF(none);
    if (!child)
        return NULL;
    failed = observe_duration((Cell *)child, span_seconds(self));
    Py_DECREF(child);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *span_elapsed(Span *self, void *Py_UNUSED(closure)) {
    double now = self->end;
    if (!self->entered)
        return PyFloat_FromDouble(0);
    if (!self->ended && read_clock(self->timer, &now) < 0)
        return NULL;
    return PyFloat_FromDouble(now > self->start ? now - self->start : 0);
}

static PyObject *span_tag(Span *self, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args))
        return PyErr_Format(PyExc_TypeError, "tag() takes tags by keyword only");
    if (!self->tags) {
        if (!(self->tags = PyDict_New()))
            return NULL;
        PyObject_GC_Track(self);
    }
    if (kwargs && PyDict_Update(self->tags, kwargs) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *span_discard(Span *self, PyObject *Py_UNUSED(ignored)) {
    self->discarded = 1;
    Py_RETURN_NONE;
}

static int span_traverse(Span *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->timer);
    Py_VISIT(self->tags);
    return 0;
}

static int span_clear(Span *self) {
    Py_CLEAR(self->tags);
    return 0;
}

static void span_dealloc(Span *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->tags)
        PyObject_GC_UnTrack(self);
    Py_CLEAR(self->tags);
    Py_CLEAR(self->timer);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef span_methods[] = {
    {"__enter__", (PyCFunction)span_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(span_exit), NULL},
    {"tag", (PyCFunction)(void (*)(void))span_tag, METH_VARARGS | METH_KEYWORDS,
     "tag($self, /, **tags)\n--\n\nMeasure this block under the timer with these tags too."},
    {"discard", (PyCFunction)span_discard, METH_NOARGS, "discard($self)\n--\n\nDo not measure this block."},
    {0},
};

static PyGetSetDef span_getset[] = {
    {"elapsed", (getter)span_elapsed, NULL, "Seconds since the block was entered, or that it took.", NULL},
    {0},
};

static PyType_Slot span_slots[] = {
    {Py_tp_doc, "One timed block."},
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_traverse, span_traverse},
    {Py_tp_clear, span_clear},
    {Py_tp_methods, span_methods},
    {Py_tp_getset, span_getset},
    {0, NULL},
};

static PyType_Spec span_spec = {
    .name = "metricslib.timer.Span",
    .basicsize = sizeof(Span),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = span_slots,
};

/* -- a timed function */

#if PY_VERSION_HEX < 0x030C0000
static PyObject *PyErr_GetRaisedException(void) {
    PyObject *kind, *error, *traceback;
    PyErr_Fetch(&kind, &error, &traceback);
    PyErr_NormalizeException(&kind, &error, &traceback);
    if (traceback)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(kind);
    Py_XDECREF(traceback);
    return error;
}

static void PyErr_SetRaisedException(PyObject *error) {
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}
#endif

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *function;
    Cell *timer;
    PyObject *dict, *weakrefs;
} Timed;

static PyObject *timed_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Timed *self = (Timed *)object;
    double start, end;
    PyObject *result, *raised;
    if (read_clock(self->timer, &start) < 0)
        return NULL;
    result = PyObject_Vectorcall(self->function, args, nargsf, kwnames);
    if (result) {
        if (read_clock(self->timer, &end) < 0 || observe_duration(self->timer, end - start) < 0)
            Py_CLEAR(result);
        return result;
    }
    raised = PyErr_GetRaisedException();
    if (read_clock(self->timer, &end) < 0 || observe_duration(self->timer, end - start) < 0)
        Py_DECREF(raised);
    else
        PyErr_SetRaisedException(raised);
    return NULL;
}

static PyObject *timed_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *function, *timer, *module;
    Timed *self;
    if (kwargs && PyDict_GET_SIZE(kwargs))
        return PyErr_Format(PyExc_TypeError, "Timed() takes a function and a timer");
    if (!(module = PyType_GetModuleByDef(type, &speedups_module)))
        return NULL;
    if (!PyArg_ParseTuple(args, "OO!", &function, ((module_state *)PyModule_GetState(module))->cell_type, &timer))
        return NULL;
    if (!(self = (Timed *)type->tp_alloc(type, 0)))
        return NULL;
    self->vectorcall = timed_call;
    self->function = Py_NewRef(function);
    self->timer = (Cell *)Py_NewRef(timer);
    return (PyObject *)self;
}

static PyObject *timed_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type)) {
    return object && object != Py_None ? PyMethod_New(self, object) : Py_NewRef(self);
}

static PyObject *timed_repr(Timed *self) {
    PyObject *name = PyObject_GetAttr((PyObject *)self, self->timer->state->str_qualname), *text;
    if (!name)
        return NULL;
    text = PyUnicode_FromFormat("<function %S at %p>", name, self);
    Py_DECREF(name);
    return text;
}

/* Functions are pickled by name. */
static PyObject *timed_reduce(Timed *self, PyObject *Py_UNUSED(ignored)) {
    return PyObject_GetAttr((PyObject *)self, self->timer->state->str_qualname);
}

static int timed_traverse(Timed *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->timer);
    Py_VISIT(self->dict);
    return 0;
}

static int timed_clear(Timed *self) {
    Py_CLEAR(self->function);
    Py_CLEAR(self->timer);
    Py_CLEAR(self->dict);
    return 0;
}

static void timed_dealloc(Timed *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    timed_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef timed_methods[] = {
    {"__reduce__", (PyCFunction)timed_reduce, METH_NOARGS, NULL},
    {0},
};

static PyMemberDef timed_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Timed, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Timed, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Timed, weakrefs), READONLY, NULL},
    {0},
};

static PyGetSetDef timed_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {0},
};

static PyType_Slot timed_slots[] = {
    {Py_tp_new, timed_new},
    {Py_tp_dealloc, timed_dealloc},
    {Py_tp_traverse, timed_traverse},
    {Py_tp_clear, timed_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, timed_get},
    {Py_tp_repr, timed_repr},
    {Py_tp_methods, timed_methods},
    {Py_tp_members, timed_members},
    {Py_tp_getset, timed_getset},
    {0, NULL},
};

static PyType_Spec timed_spec = {
    .name = "metricslib._speedups.Timed",
    .basicsize = sizeof(Timed),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = timed_slots,
};

#endif
