/* The type Timed: the twin of what decorators.py puts around a plain function. A part of _speedups.c. */

#ifndef METRICSLIB_TIMED_H
#define METRICSLIB_TIMED_H

#include "_timing.h"

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
    moment start, end;
    PyObject *result, *raised;
    if (read_clock(self->timer, &start) < 0)
        return NULL;
    result = PyObject_Vectorcall(self->function, args, nargsf, kwnames);
    if (result) {
        if (read_clock(self->timer, &end) < 0 || observe_duration(self->timer, seconds_between(&start, &end)) < 0)
            Py_CLEAR(result);
        return result;
    }
    raised = PyErr_GetRaisedException();
    if (read_clock(self->timer, &end) < 0 || observe_duration(self->timer, seconds_between(&start, &end)) < 0)
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
