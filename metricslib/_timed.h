/* A timed call of a function: the part of `timed` in decorators.py that is in C. A part of _speedups.c.

   The decorated function is a Python function. Its body, `return call(function, args, kwargs)`, does everything by a
   call of cell_call. From Python 3.12 on an interpreter calls a Python function by its vectorcall field, if that was
   set; timed_vectorcall does the same as the body without a frame for it. It is built only where METRICSLIB_VECTORCALL is
   defined: it is to be in use only once it has been tested with that version of Python. */

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

/* Observe the time since `start`, and return `result`, which is the caller's reference, or NULL with an exception. */
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

/* _call(function, args, kwargs): call the function, and observe how long that took. The arguments belong to the caller,
   which holds them until this returns. */
static PyObject *cell_call(Cell *timer, PyObject *const *args, Py_ssize_t nargs) {
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

static PyObject *timed_vectorcall(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    PyFunctionObject *wrapper = (PyFunctionObject *)object;
    PyObject *call, *function, *result = NULL;
    Cell *timer;
    moment start;
    /* The cells of `call` and `function`, in the order of the alphabet. Anybody may change a closure or a code object:
       then the body counts. */
    if (!wrapper->func_closure || PyTuple_GET_SIZE(wrapper->func_closure) != 2)
        return _PyFunction_Vectorcall(object, args, nargsf, kwnames);
    call = PyCell_GET(PyTuple_GET_ITEM(wrapper->func_closure, 0));
    function = PyCell_GET(PyTuple_GET_ITEM(wrapper->func_closure, 1));
    if (!call || !function || !PyCFunction_CheckExact(call) ||
        PyCFunction_GET_FUNCTION(call) != (PyCFunction)(void (*)(void))cell_call ||
        wrapper->func_code != ((Cell *)PyCFunction_GET_SELF(call))->state->timed_code)
        return _PyFunction_Vectorcall(object, args, nargsf, kwnames);
    timer = (Cell *)Py_NewRef(PyCFunction_GET_SELF(call));
    Py_INCREF(function);
    if (read_clock(timer, &start) == 0)
        result = timed_result(timer, &start, PyObject_Vectorcall(function, args, nargsf, kwnames));
    Py_DECREF(function);
    Py_DECREF(timer);
    return result;
}

/* call_directly(wrapper): from now on call it without a frame of its own. All wrappers share one code object. */
static PyObject *call_directly(PyObject *module, PyObject *wrapper) {
    module_state *state = PyModule_GetState(module);
    if (!PyFunction_Check(wrapper))
        return PyErr_Format(PyExc_TypeError, "call_directly() takes a function");
    if (!state->timed_code)
        state->timed_code = Py_NewRef(PyFunction_GET_CODE(wrapper));
    PyFunction_SetVectorcall((PyFunctionObject *)wrapper, timed_vectorcall);
    Py_RETURN_NONE;
}

#endif

#endif
