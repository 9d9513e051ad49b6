/* The functions of _speedups for other extensions, in the capsule "metricslib._speedups.sketch_api". */

#ifndef METRICSLIB_SKETCH_API_H
#define METRICSLIB_SKETCH_API_H

#include "sketch.h"
#include <Python.h>

#define SKETCH_API "metricslib._speedups.sketch_api"

typedef struct {
    /* Move `from` into a new, frozen object of `type`, which is metricslib.sketch.Distribution, and leave `from` empty.
       Return NULL with an exception on failure; then `from` is unchanged. */
    PyObject *(*distribution)(PyTypeObject *type, sketch *from);
} sketch_api;

#endif
