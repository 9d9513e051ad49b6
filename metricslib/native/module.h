/* Declarations shared by the files of metricslib._speedups: the state of the module, the structures of the types, and
   functions that several files call.

   The Python classes with the same names are the specification. Each type handles the common case in C and calls the
   method in Python for the rest. No Python code runs while a structure is half changed: objects are made before the
   change, and references released after it.

   module.c: the module. cell.c: the base class of instruments (cell.h). samples.c: the samples of a timer (sketch.h,
   ranks.h). span.c: timed blocks and timed calls. sketch_api.h: functions for the forwarder's extension. */

#ifndef METRICSLIB_MODULE_H
#define METRICSLIB_MODULE_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <structmember.h>

#if PY_VERSION_HEX < 0x030C0000
#undef METRICSLIB_VECTORCALL /* older interpreters ignore the vectorcall field; see span.c */
#endif

#ifdef Py_GIL_DISABLED /* only for experiments: setup.py builds no C there */
#define CELL_ATOMIC
#endif
#include "cell.h"
#include "sketch.h"
#include "sketch_api.h"

typedef struct {
    PyTypeObject *cell_type, *samples_type, *span_type;
    PyTypeObject *distribution; /* of metricslib.sketch; this one and the next two are imported at first use */
    PyObject *gauge_change;     /* of metricslib.window */
    PyObject *system_clock;     /* SystemClock.monotonic of metricslib.clock */
    PyObject *time_dict;        /* of the module time */
    PyObject *perf_counter;     /* the original time.perf_counter, or NULL if it was replaced before the import */
    PyObject *str_perf_counter, *str_fold, *str_wake, *str_change, *str_tagged_slowly, *str_owner, *str_exact, *str_tagged;
#ifdef METRICSLIB_VECTORCALL
    PyObject *timed_code; /* the code object of the wrapper of `timed` for plain functions */
#endif
    PyObject *spare; /* an unused span for the next block; it keeps its reference to its type */
    int ending;      /* the module is being freed: keep no spare */
    uint64_t time_version;
} module_state;

typedef struct {
    PyObject_HEAD
    cell cell;
    PyObject *pending;  /* a list; NULL until the first one */
    PyObject *lock;     /* NULL until it is first used */
    PyObject *children; /* a dict, None or NULL */
    PyObject *now;      /* a timer's clock */
    module_state *state;
} Cell;

typedef struct {
    PyObject_HEAD
    sketch sketch;
} Samples;

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL
#define FAST_NAMED(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

/* -- module.c */

extern struct PyModuleDef speedups_module;

/* -- cell.c */

extern PyType_Spec cell_spec;

/* Return the C implementation of a method of a class of instruments, by name. */
PyObject *method_of(PyObject *module, PyObject *args);

/* Add a duration to a timer. Return -1 with an exception. */
int observe_duration(Cell *timer, double seconds);

/* -- samples.c */

extern PyType_Spec samples_spec;
extern const sketch_api samples_api;

/* Convert the number of samples that are kept exactly. Return -1 with an exception. */
int limit_of(PyObject *number, uint32_t *limit);

/* Return a new, empty object of `type`, or NULL with an exception. */
Samples *samples_made(PyTypeObject *type, uint32_t limit);

/* -- span.c */

extern PyType_Spec span_spec;

/* Add __enter__ and __exit__ to the type of spans. Return -1 with an exception. */
int add_block_methods(PyTypeObject *span_type);

PyObject *cell_time(Cell *self, PyObject *ignored);
PyObject *cell_call(Cell *timer, PyObject *const *args, Py_ssize_t nargs);
#ifdef METRICSLIB_VECTORCALL
PyObject *call_directly(PyObject *module, PyObject *wrapper);
#endif

#endif
