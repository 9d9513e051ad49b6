/* The type Span, the C implementation of Span in timer.py, and the part of `timed` in decorators.py that is in C. */

#include "module.h"
#include <time.h>

/* A time on the timer's clock: in nanoseconds if it was read in C, in seconds if the timer's clock was called. */
typedef struct {
    int here;
    int64_t nanoseconds;
    double seconds;
} moment;

/* Return true if time.perf_counter is the original one: a replacement, as by freezegun, must be called. */
static inline int clock_is_original(module_state *state) {
#if PY_VERSION_HEX < 0x030C0000 /* a lookup is only needed if the version of the dictionary has changed */
    uint64_t version = state->time_dict ? ((PyDictObject *)state->time_dict)->ma_version_tag : 0;
    if (version && version == state->time_version)
        return 1;
#endif
    if (!state->perf_counter ||
        PyDict_GetItemWithError(state->time_dict, state->str_perf_counter) != state->perf_counter)
        return 0;
#if PY_VERSION_HEX < 0x030C0000
    state->time_version = version;
#endif
    return 1;
}

static int64_t nanoseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* the clock of time.perf_counter */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Read the timer's clock. Return -1 with an exception. */
static inline int read_clock(Cell *timer, moment *now) {
    PyObject *clock, *result;
    now->here = timer->now == timer->state->system_clock && clock_is_original(timer->state);
    if (now->here) {
        now->nanoseconds = nanoseconds_now();
        return 0;
    }
    if (!timer->now) {
        PyErr_SetString(PyExc_AttributeError, "the timer has no clock");
        return -1;
    }
    clock = Py_NewRef(timer->now); /* owned, because the clock may replace itself */
    result = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    if (!result)
        return -1;
    now->seconds = PyFloat_AsDouble(result);
    Py_DECREF(result);
    return now->seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* Return the seconds from one time to another, never negative. */
static inline double seconds_between(const moment *start, const moment *end) {
    double seconds;
    if (start->here && end->here)
        return (double)(end->nanoseconds - start->nanoseconds) * 1e-9;
    seconds = (end->here ? (double)end->nanoseconds * 1e-9 : end->seconds) -
              (start->here ? (double)start->nanoseconds * 1e-9 : start->seconds);
    return seconds > 0 ? seconds : 0;
}

/* -- a timed block

   Three techniques here are not part of CPython's stable interface. Their benefit was measured on CPython 3.11 by omitting
   each of them: `with timer.time(): pass` takes 145 ns; without the version of the dictionary in clock_is_original() 167 ns,
   without the spare span below 161 ns, and without the span that replaces its bound methods (`Itself`) 195 ns. */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* see below, under `Itself` */
    Cell *timer;
    PyObject *tags; /* a dict, or NULL */
    moment start, end;
    uint8_t started, ended, discarded;
} Span;

static PyObject *span_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames);

PyObject *cell_time(Cell *self, PyObject *Py_UNUSED(ignored)) {
    Span *span;
#ifndef CELL_ATOMIC
    if ((span = (Span *)self->state->spare)) {
        self->state->spare = NULL;
        _Py_NewReference((PyObject *)span);
    } else
#endif
        if (!self->state->span_type) /* called by a finalizer while the interpreter shuts down */
            return PyErr_Format(PyExc_RuntimeError, "the interpreter ends");
        else if (!(span = PyObject_GC_New(Span, self->state->span_type)))
            return NULL;
    /* The garbage collector does not track the span until it has tags, because before it cannot be in a cycle. */
    span->vectorcall = span_call;
    span->timer = (Cell *)Py_NewRef(self);
    span->tags = NULL;
    span->started = span->ended = span->discarded = 0;
    return (PyObject *)span;
}

/* The clock may be a Python function that uses this span, so it is read before the span. */

static PyObject *span_start(Span *self, PyObject *Py_UNUSED(ignored)) {
    moment now;
    if (read_clock(self->timer, &now) < 0)
        return NULL;
    self->start = now;
    self->started = 1;
    self->ended = self->discarded = 0;
    return Py_NewRef(self);
}

/* Add the duration to the timer that also has the span's tags. Return -1 with an exception. */
static int observe_tagged(Span *self, double seconds) {
    module_state *state = self->timer->state;
    PyObject *tagged = PyObject_GetAttr((PyObject *)self->timer, state->str_tagged), *none = PyTuple_New(0);
    PyObject *child = tagged && none ? PyObject_Call(tagged, none, self->tags) : NULL;
    PyObject *done = NULL;
    Py_XDECREF(tagged);
    Py_XDECREF(none);
    if (child && Py_TYPE(child) != Py_TYPE(self->timer)) /* tagged() was replaced, for example by a test */
        done = PyObject_CallMethod(child, "observe", "d", seconds);
    else if (child && observe_duration((Cell *)child, seconds) == 0)
        done = Py_NewRef(Py_None);
    Py_XDECREF(child);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *span_stop(Span *self, PyObject *Py_UNUSED(ignored)) {
    moment now;
    double seconds;
    if (read_clock(self->timer, &now) < 0)
        return NULL;
    if (!self->started || self->ended)
        Py_RETURN_NONE;
    self->end = now;
    self->ended = 1;
    if (self->discarded)
        Py_RETURN_NONE;
    seconds = seconds_between(&self->start, &self->end);
    if ((self->tags ? observe_tagged(self, seconds) : observe_duration(self->timer, seconds)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *span_exit(Span *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs)) {
    return span_stop(self, NULL);
}

static PyObject *span_elapsed(Span *self, void *Py_UNUSED(closure)) {
    moment now = {0};
    if (!self->started)
        return PyFloat_FromDouble(0);
    if (!self->ended && read_clock(self->timer, &now) < 0)
        return NULL;
    if (self->ended)
        now = self->end;
    return PyFloat_FromDouble(seconds_between(&self->start, &now));
}

static PyObject *span_tag(Span *self, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args))
        return PyErr_Format(PyExc_TypeError, "tag() takes tags by keyword only, as in tag(route='/search')");
    if (!self->tags) {
        PyObject *made = PyDict_New(); /* may run Python code, which may tag this span */
        if (!made)
            return NULL;
        if (self->tags)
            Py_DECREF(made);
        else
            self->tags = made;
        if (!PyObject_GC_IsTracked((PyObject *)self))
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
    module_state *state = self->timer->state;
    Cell *timer = self->timer;
    PyObject *tags = self->tags;
    PyObject_GC_UnTrack(self); /* does nothing if it was not tracked */
    self->tags = NULL;
    self->timer = NULL;
#ifndef CELL_ATOMIC
    if (!state->spare && !state->ending) { /* for the next block, with its reference to the type */
        state->spare = (PyObject *)self;
        Py_XDECREF(tags);
        Py_DECREF(timer);
        return;
    }
#endif
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_XDECREF(tags);
    Py_DECREF(timer);
}

static PyMethodDef span_methods[] = {
    {"start", (PyCFunction)span_start, METH_NOARGS, "start($self)\n--\n\nStart or restart the span, and return it."},
    {"stop", (PyCFunction)span_stop, METH_NOARGS, "stop($self)\n--\n\nStop the span, if it is running, and add its duration."},
    {"tag", (PyCFunction)(void (*)(void))span_tag, METH_VARARGS | METH_KEYWORDS,
     "tag($self, /, **tags)\n--\n\nAdd the duration to the timer that also has these tags."},
    {"discard", (PyCFunction)span_discard, METH_NOARGS, "discard($self)\n--\n\nDo not add the current run to the timer."},
    {0},
};

static PyGetSetDef span_getset[] = {
    {"elapsed", (getter)span_elapsed, NULL, "Seconds since the start, or from start to stop.", NULL},
    {0},
};

static PyMemberDef span_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Span, vectorcall), READONLY, NULL},
    {0},
};

static PyType_Slot span_slots[] = {
    {Py_tp_doc, "One measurement: of a block, or from start() to stop()."},
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_traverse, span_traverse},
    {Py_tp_clear, span_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, span_members},
    {Py_tp_methods, span_methods},
    {Py_tp_getset, span_getset},
    {0, NULL},
};

PyType_Spec span_spec = {
    .name = "metricslib.instruments.timer.Span",
    .basicsize = sizeof(Span),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = span_slots,
};

/* -- the attributes __enter__ and __exit__

   The interpreter looks up both on the span. Creating a bound method for each would take longer than the calls themselves.
   So both lookups return the span, which is callable: without arguments it enters, and with three arguments it exits.
   Looked up on the type, both are ordinary methods. */

typedef struct {
    PyObject_HEAD
    PyMethodDef *method;
} Itself;

static PyMethodDef span_block[] = {
    {"__enter__", (PyCFunction)span_start, METH_NOARGS, NULL},
    {"__exit__", FAST(span_exit), NULL},
    {0},
};

static PyObject *span_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs == 3 && !kwnames)
        return span_exit((Span *)object, args, nargs);
    if (nargs == 0 && !kwnames)
        return span_start((Span *)object, NULL);
    return PyErr_Format(PyExc_TypeError, "a Span cannot be called; to time a function, use @metrics.timed(name)");
}

static PyObject *itself_get(PyObject *self, PyObject *span, PyObject *type) {
    if (span)
        return Py_NewRef(span);
    if (PyType_Check(type) && ((PyTypeObject *)type)->tp_dealloc == (destructor)span_dealloc)
        return PyDescr_NewMethod((PyTypeObject *)type, ((Itself *)self)->method);
    return Py_NewRef(self);
}

static PyType_Slot itself_slots[] = {
    {Py_tp_descr_get, itself_get},
    {0, NULL},
};

static PyType_Spec itself_spec = {
    .name = "metricslib._speedups.Itself",
    .basicsize = sizeof(Itself),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = itself_slots,
};

int add_block_methods(PyTypeObject *span_type) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(&itself_spec);
    int failed = !type;
    for (PyMethodDef *method = span_block; method->ml_name && !failed; method++) {
        Itself *itself = PyObject_New(Itself, type);
        if (itself)
            itself->method = method;
        failed = !itself || PyObject_SetAttrString((PyObject *)span_type, method->ml_name, (PyObject *)itself) < 0;
        Py_XDECREF(itself);
    }
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

/* -- a timed call of a function

   The decorated function is a Python function. Its body is `return call(function, args, kwargs)`, which calls cell_call().
   From Python 3.12 on, the interpreter calls a Python function through its vectorcall field, if that was set.
   timed_vectorcall() does the same as the body, without a frame for it. It is built only if METRICSLIB_VECTORCALL is
   defined, as in CI, because it must only be used with versions of Python with which it was tested. */

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

/* Add the time since `start`, and return `result`, whose reference is passed on, or NULL with an exception. */
static PyObject *timed_result(Cell *timer, const moment *start, PyObject *result) {
    moment end;
    PyObject *raised = result ? NULL : PyErr_GetRaisedException();
    if (read_clock(timer, &end) < 0 || observe_duration(timer, seconds_between(start, &end)) < 0) {
        Py_XDECREF(raised);
        Py_CLEAR(result);
    } else if (raised)
        PyErr_SetRaisedException(raised);
    return result;
}

/* _call(function, args, kwargs): call the function, and add the duration of the call. The caller owns the arguments until
   this returns. */
PyObject *cell_call(Cell *timer, PyObject *const *args, Py_ssize_t nargs) {
    moment start;
    PyObject *result;
    if (nargs != 3 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2]))
        return PyErr_Format(PyExc_TypeError, "_call() takes a function, a tuple and a dict");
    if (read_clock(timer, &start) < 0)
        return NULL;
    if (PyDict_GET_SIZE(args[2]))
        result = PyObject_Call(args[0], args[1], args[2]);
    else
        result = PyObject_Vectorcall(args[0], &PyTuple_GET_ITEM(args[1], 0), (size_t)PyTuple_GET_SIZE(args[1]), NULL);
    return timed_result(timer, &start, result);
}

#ifdef METRICSLIB_VECTORCALL

static vectorcallfunc usual_vectorcall; /* the vectorcall of all Python functions, which has no public name */

static PyObject *timed_vectorcall(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    PyFunctionObject *wrapper = (PyFunctionObject *)object;
    PyObject *call, *function, *result = NULL;
    Cell *timer;
    moment start;
    /* The closure has the cells of `call` and `function`, in alphabetical order. If a program has changed the closure or
       the code object, the body is called. */
    if (!wrapper->func_closure || PyTuple_GET_SIZE(wrapper->func_closure) != 2)
        return usual_vectorcall(object, args, nargsf, kwnames);
    call = PyCell_GET(PyTuple_GET_ITEM(wrapper->func_closure, 0));
    function = PyCell_GET(PyTuple_GET_ITEM(wrapper->func_closure, 1));
    if (!call || !function || !PyCFunction_CheckExact(call) ||
        PyCFunction_GET_FUNCTION(call) != (PyCFunction)(void (*)(void))cell_call ||
        wrapper->func_code != ((Cell *)PyCFunction_GET_SELF(call))->state->timed_code)
        return usual_vectorcall(object, args, nargsf, kwnames);
    timer = (Cell *)Py_NewRef(PyCFunction_GET_SELF(call));
    Py_INCREF(function);
    if (read_clock(timer, &start) == 0)
        result = timed_result(timer, &start, PyObject_Vectorcall(function, args, nargsf, kwnames));
    Py_DECREF(function);
    Py_DECREF(timer);
    return result;
}

/* call_directly(wrapper): from now on, call it without a frame of its own. All wrappers share one code object. */
PyObject *call_directly(PyObject *module, PyObject *wrapper) {
    module_state *state = PyModule_GetState(module);
    if (!PyFunction_Check(wrapper))
        return PyErr_Format(PyExc_TypeError, "call_directly() takes a function");
    if (!usual_vectorcall)
        usual_vectorcall = ((PyFunctionObject *)wrapper)->vectorcall;
    if (!state->timed_code)
        state->timed_code = Py_NewRef(PyFunction_GET_CODE(wrapper));
    PyFunction_SetVectorcall((PyFunctionObject *)wrapper, timed_vectorcall);
    Py_RETURN_NONE;
}

#endif
