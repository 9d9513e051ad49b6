/* The type Samples: the C implementation of Samples in sketch.py over sketch.h and ranks.h.

   Two rules keep an object consistent. First, all arguments are converted to numbers and checked before the samples are
   read, because a conversion may run Python code, which may use this object. Second, changes are made in a copy, which
   then replaces the samples at once: a bad number, or an allocation that fails, leaves the samples unchanged. The garbage
   collector may also run Python code when a list, tuple or dict is created, so pointers into the samples are read after
   that. */

#include "module.h"
#include "ranks.h"

/* -- arguments */

int limit_of(PyObject *number, uint32_t *limit) {
    int overflow = 0;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow < 0 || (!overflow && value < 0)) {
        PyErr_SetString(PyExc_ValueError, "a limit must be at least 0");
        return -1;
    }
    *limit = overflow || value > SKETCH_MAX_LIMIT ? SKETCH_MAX_LIMIT : (uint32_t)value;
    return 0;
}

/* Numbers that were given as objects. */
typedef struct {
    double *values; /* the caller frees them */
    Py_ssize_t n;
} numbers;

/* Convert the numbers in an iterable. Return -1 with an exception; then there is nothing to free. */
static int numbers_from(PyObject *iterable, numbers *into) {
    PyObject *tuple = PySequence_Tuple(iterable); /* a copy, because __float__ may change a list */
    if (!tuple)
        return -1;
    into->n = PyTuple_GET_SIZE(tuple);
    if (!(into->values = PyMem_New(double, (size_t)into->n + 1))) {
        PyErr_NoMemory();
        goto fail;
    }
    for (Py_ssize_t i = 0; i < into->n; i++) {
        into->values[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple, i));
        if (into->values[i] == -1.0 && PyErr_Occurred())
            goto fail;
    }
    Py_DECREF(tuple);
    return 0;
fail:
    PyMem_Free(into->values);
    Py_DECREF(tuple);
    return -1;
}

static int is_sample(double value) {
    if (isfinite(value))
        return 1;
    PyErr_SetString(PyExc_ValueError, "a sample must be a finite number");
    return 0;
}

/* Like numbers_from(), but the numbers must be finite. */
static int samples_from(PyObject *iterable, numbers *into) {
    if (numbers_from(iterable, into) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < into->n; i++)
        if (!is_sample(into->values[i])) {
            PyMem_Free(into->values);
            return -1;
        }
    return 0;
}

/* -- writing */

/* Replace the samples by `aside`, to which there is no other pointer. */
static void samples_become(Samples *self, sketch *aside) {
    sketch before = self->sketch;
    self->sketch = *aside;
    sketch_free(&before);
}

static int sketch_extend(sketch *into, const numbers *samples) {
    for (Py_ssize_t i = 0; i < samples->n; i++)
        if (sketch_add(into, samples->values[i], 1) < 0)
            return -1;
    return 0;
}

/* Write a copy of `from` with these samples added to `aside`. Return -1 with an exception. */
static int samples_with(const sketch *from, const numbers *samples, sketch *aside) {
    if (sketch_copy(aside, from) == 0 && sketch_extend(aside, samples) == 0)
        return 0;
    sketch_free(aside);
    PyErr_NoMemory();
    return -1;
}

static int samples_init(Samples *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"values", "limit", NULL};
    PyObject *values = NULL, *limit = NULL;
    uint32_t most = 256; /* EXACT in sketch.py */
    numbers samples = {0};
    sketch empty, aside;
    int failed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$O", names, &values, &limit))
        return -1;
    if ((limit && limit_of(limit, &most) < 0) || (values && samples_from(values, &samples) < 0))
        return -1;
    sketch_init(&empty, most);
    if (!(failed = samples_with(&empty, &samples, &aside)))
        samples_become(self, &aside);
    PyMem_Free(samples.values);
    return failed;
}

static PyObject *samples_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
    Samples *self = (Samples *)type->tp_alloc(type, 0);
    if (self)
        sketch_init(&self->sketch, 256);
    return (PyObject *)self;
}

static void samples_dealloc(Samples *self) {
    PyTypeObject *type = Py_TYPE(self);
    sketch_free(&self->sketch);
    type->tp_free(self);
    Py_DECREF(type);
}

Samples *samples_made(PyTypeObject *type, uint32_t limit) {
    Samples *made = (Samples *)type->tp_alloc(type, 0);
    if (made)
        sketch_init(&made->sketch, limit);
    return made;
}

/* Return the state of the module to which `type`, or a base class of it, belongs. NULL with an exception. */
static module_state *state_of(PyTypeObject *type) {
    PyObject *module = PyType_GetModuleByDef(type, &speedups_module);
    return module ? PyModule_GetState(module) : NULL;
}

static PyObject *samples_from_sketch(PyTypeObject *type, sketch *from) {
    module_state *state = state_of(type);
    Samples *made;
    if (!state)
        return NULL;
    if (!state->samples_type || !PyType_IsSubtype(type, state->samples_type))
        return PyErr_Format(PyExc_TypeError, "not a type of distributions: %R", type);
    if (sketch_freeze(from) < 0)
        return PyErr_NoMemory();
    if (!(made = samples_made(type, from->limit)))
        return NULL;
    made->sketch = *from;
    sketch_init(from, from->limit);
    return (PyObject *)made;
}

const sketch_api samples_api = {samples_from_sketch};

static int samples_bool(Samples *self) { return self->sketch.n > 0 || self->sketch.buckets != NULL; }

PyDoc_STRVAR(samples_add_doc, "add($self, value, weight=1, /)\n--\n\nAdd one sample, which counts weight times.");

static PyObject *samples_add(Samples *self, PyObject *const *args, Py_ssize_t nargs) {
    double value, weight = 1;
    if (nargs < 1 || nargs > 2)
        return PyErr_Format(PyExc_TypeError, "add() takes a value and a weight");
    if ((value = PyFloat_AsDouble(args[0])) == -1.0 && PyErr_Occurred())
        return NULL;
    if (nargs == 2 && (weight = PyFloat_AsDouble(args[1])) == -1.0 && PyErr_Occurred())
        return NULL;
    if (!is_sample(value))
        return NULL;
    if (!(weight > 0) || isinf(weight)) {
        PyErr_SetString(PyExc_ValueError, "a weight must be a finite number greater than 0");
        return NULL;
    }
    if (sketch_add(&self->sketch, value, weight) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_extend_doc, "extend($self, values, /)\n--\n\nAdd many samples of weight 1.");

static PyObject *samples_extend(Samples *self, PyObject *values) {
    numbers samples;
    sketch aside;
    int failed;
    if (samples_from(values, &samples) < 0)
        return NULL;
    if (!(failed = samples_with(&self->sketch, &samples, &aside)))
        samples_become(self, &aside);
    PyMem_Free(samples.values);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_extended_doc, "extended($type, distribution, values, limit, /)\n--\n\n"
                                   "Return a copy of distribution with samples of weight 1 added.");

static PyObject *samples_extended(PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs) {
    module_state *state = state_of(type);
    Samples *made = NULL;
    numbers samples;
    uint32_t limit;
    sketch empty, aside;
    if (!state)
        return NULL;
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "extended() takes a distribution, values and a limit");
    if (args[0] != Py_None && !PyObject_TypeCheck(args[0], state->samples_type))
        return PyErr_Format(PyExc_TypeError, "not a distribution: %R", args[0]);
    if (limit_of(args[2], &limit) < 0 || samples_from(args[1], &samples) < 0)
        return NULL;
    if (!samples.n) {
        PyMem_Free(samples.values);
        return Py_NewRef(args[0]);
    }
    sketch_init(&empty, limit);
    if (samples_with(args[0] == Py_None ? &empty : &((Samples *)args[0])->sketch, &samples, &aside) == 0) {
        if ((made = samples_made(type, limit)))
            made->sketch = aside;
        else
            sketch_free(&aside);
    }
    PyMem_Free(samples.values);
    return (PyObject *)made;
}

PyDoc_STRVAR(samples_merge_doc, "merge($self, other, /)\n--\n\nAdd all samples of other, which is not changed.");

static PyObject *samples_merge(Samples *self, PyObject *other) {
    module_state *state = state_of(Py_TYPE(self));
    sketch aside;
    if (!state)
        return NULL;
    if (!PyObject_TypeCheck(other, state->samples_type))
        return PyErr_Format(PyExc_TypeError, "not a distribution: %R", other);
    if (sketch_copy(&aside, &self->sketch) < 0 || sketch_merge(&aside, &((Samples *)other)->sketch) < 0) {
        sketch_free(&aside);
        return PyErr_NoMemory();
    }
    samples_become(self, &aside);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_adjust_doc, "adjust($self, sum, sum_squares, /)\n--\n\n"
                                 "Correct the sums of samples that represent buckets.");

static PyObject *samples_adjust(Samples *self, PyObject *const *args, Py_ssize_t nargs) {
    double sum, sum_squares;
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "adjust() takes a sum and a sum of squares");
    if ((sum = PyFloat_AsDouble(args[0])) == -1.0 && PyErr_Occurred())
        return NULL;
    if ((sum_squares = PyFloat_AsDouble(args[1])) == -1.0 && PyErr_Occurred())
        return NULL;
    if (!is_sample(sum) || !is_sample(sum_squares))
        return NULL;
    if (sketch_adjust(&self->sketch, sum, sum_squares) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_freeze_doc, "freeze($self)\n--\n\nCompute the statistics, and return the distribution.");

static PyObject *samples_freeze(Samples *self, PyObject *Py_UNUSED(ignored)) {
    if (sketch_freeze(&self->sketch) < 0)
        return PyErr_NoMemory();
    return Py_NewRef(self);
}

/* -- for the Python class */

static int all_unit(const sketch *s) { return s->buckets ? !s->unit_known || s->unit == 1 : !s->weights; }

/* Return a weight as an int if `whole`, which means that all weights are 1, otherwise as a float. */
static PyObject *weight_object(int whole, double weight) {
    return whole ? PyLong_FromDouble(weight) : PyFloat_FromDouble(weight);
}

static PyObject *samples_get_count(Samples *self, void *Py_UNUSED(closure)) {
    return weight_object(all_unit(&self->sketch), self->sketch.count);
}

static PyObject *samples_get_exact(Samples *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(!self->sketch.buckets);
}

/* Return a list of n numbers. No other code may change them during the call. */
static PyObject *list_of(const double *values, uint32_t n, int whole) {
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list && i < n; i++) {
        PyObject *value = weight_object(whole, values[i]);
        if (!value)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, value);
    }
    return list;
}

/* Return a list of numbers of a distribution. They are copied first, because creating a list may run Python code. */
static PyObject *list_of_copy(const double *values, uint32_t n) {
    double *copy = PyMem_New(double, (size_t)n + 1);
    PyObject *list;
    if (!copy)
        return PyErr_NoMemory();
    if (n)
        memcpy(copy, values, n * sizeof *copy);
    list = list_of(copy, n, 0);
    PyMem_Free(copy);
    return list;
}

static PyObject *samples_get_samples(Samples *self, void *Py_UNUSED(closure)) {
    return list_of_copy(self->sketch.samples, self->sketch.n);
}

static PyObject *samples_get_weights(Samples *self, void *Py_UNUSED(closure)) {
    if (!self->sketch.weights)
        Py_RETURN_NONE;
    return list_of_copy(self->sketch.weights, self->sketch.n);
}

static PyObject *samples_get_buckets(Samples *self, void *Py_UNUSED(closure)) {
    const sketch_buckets *buckets;
    int whole = all_unit(&self->sketch);
    PyObject *dict = PyDict_New();
    if (!dict || !(buckets = self->sketch.buckets)) {
        Py_XDECREF(dict);
        return dict ? Py_NewRef(Py_None) : NULL;
    }
    for (uint32_t i = 0; i <= buckets->mask; i++) {
        PyObject *key, *weight = NULL;
        if (buckets->keys[i] == SKETCH_NO_KEY)
            continue;
        key = PyLong_FromLong(buckets->keys[i]);
        if (key)
            weight = weight_object(whole, buckets->weights[i]);
        if (!weight || PyDict_SetItem(dict, key, weight) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(weight);
        if (!dict)
            return NULL;
    }
    return dict;
}

static PyObject *samples_get_unit(Samples *self, void *Py_UNUSED(closure)) {
    if (!self->sketch.unit_known)
        Py_RETURN_NONE;
    return weight_object(all_unit(&self->sketch), self->sketch.unit);
}

static PyObject *samples_sorted(Samples *self, PyObject *Py_UNUSED(ignored)) {
    const sketch *s = &self->sketch;
    uint32_t n = sketch_size(s);
    int whole = all_unit(s);
    double *values = malloc((2 * (size_t)n + 1) * sizeof *values);
    PyObject *result;
    if (!values || sketch_sorted(s, values, values + n) < 0)
        result = PyErr_NoMemory();
    else
        result = Py_BuildValue("NN", list_of(values, n, 0), list_of(values + n, n, whole));
    free(values);
    return result;
}

static PyObject *samples_common_weight(Samples *self, PyObject *Py_UNUSED(ignored)) {
    return weight_object(all_unit(&self->sketch), sketch_common_weight(&self->sketch));
}

static PyObject *samples_get_mean(Samples *self, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(sketch_mean(&self->sketch));
}

static PyObject *samples_get_std(Samples *self, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(sketch_std(&self->sketch));
}

static PyObject *samples_get_median(Samples *self, void *Py_UNUSED(closure)) {
    sketch_ranks ranks;
    double median;
    if (!sketch_size(&self->sketch))
        return PyFloat_FromDouble(NAN);
    if (sketch_rank(&self->sketch, &ranks) < 0)
        return PyErr_NoMemory();
    median = sketch_median(&ranks);
    free(ranks.values);
    return PyFloat_FromDouble(median);
}

/* Return a share as the tuple from which sketch.py creates a Share, or None if it is empty. */
static PyObject *share_row(const sketch_share *share, int whole) {
    if (!share->weight)
        Py_RETURN_NONE;
    return Py_BuildValue("Ndddd", weight_object(whole, share->weight), share->boundary, share->sum, share->sum_squares,
                         share->mean);
}

/* Compute the shares of these percentages. An empty share has the weight 0. Return -1 with an exception. */
static int shares_of(const sketch *s, const numbers *percents, sketch_share *shares) {
    sketch_ranks ranks;
    int failed = 0;
    for (Py_ssize_t i = 0; i < percents->n; i++)
        shares[i].weight = 0;
    if (!s->count || !sketch_size(s) || !percents->n)
        return 0;
    if (sketch_rank(s, &ranks) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < percents->n && !failed; i++) {
        double lines = sketch_lines(&ranks, percents->values[i]);
        if (!isfinite(lines)) {
            Py_XDECREF(PyLong_FromDouble(lines)); /* raises the same exception as math.floor() */
            failed = 1;
        } else if (!sketch_share_of(s, &ranks, percents->values[i], lines, &shares[i]))
            shares[i].weight = 0;
    }
    free(ranks.values);
    return failed ? -1 : 0;
}

static PyObject *samples_shares(Samples *self, PyObject *iterable) {
    numbers percents;
    sketch_share *shares;
    PyObject *rows = NULL;
    int whole;
    if (numbers_from(iterable, &percents) < 0)
        return NULL;
    whole = all_unit(&self->sketch);
    if (!(shares = PyMem_New(sketch_share, (size_t)percents.n + 1)))
        PyErr_NoMemory();
    else if (shares_of(&self->sketch, &percents, shares) == 0)
        rows = PyList_New(percents.n);
    for (Py_ssize_t i = 0; rows && i < percents.n; i++) {
        PyObject *row = share_row(&shares[i], whole);
        if (!row)
            Py_CLEAR(rows);
        else
            PyList_SET_ITEM(rows, i, row);
    }
    PyMem_Free(shares);
    PyMem_Free(percents.values);
    return rows;
}

PyDoc_STRVAR(samples_powers_doc, "powers($self)\n--\n\nReturn the weight of the samples in (2**(p-1), 2**p] by p.");

static PyObject *samples_powers(Samples *self, PyObject *Py_UNUSED(ignored)) {
    enum { POWERS = SKETCH_MAX_POWER - SKETCH_MIN_POWER + 1 };
    const sketch *s = &self->sketch;
    uint32_t n = sketch_size(s);
    int whole = all_unit(s);
    int16_t *keys = NULL;
    double powers[POWERS] = {0};
    PyObject *dict;
    if (s->buckets && !(keys = sketch_keys(s->buckets)))
        return PyErr_NoMemory();
    for (uint32_t i = 0; i < n; i++) {
        int key = keys ? keys[i] : sketch_key(s->samples[i]);
        powers[sketch_power(key) - SKETCH_MIN_POWER] +=
            keys ? s->buckets->weights[sketch_place(s->buckets, key)] : s->weights ? s->weights[i] : 1;
    }
    free(keys);
    dict = PyDict_New();
    for (int i = 0; dict && i < POWERS; i++) {
        PyObject *power, *weight;
        if (!powers[i])
            continue;
        power = PyLong_FromLong(i + SKETCH_MIN_POWER);
        weight = weight_object(whole, powers[i]);
        if (!power || !weight || PyDict_SetItem(dict, power, weight) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(power);
        Py_XDECREF(weight);
    }
    return dict;
}

static PyMethodDef samples_methods[] = {
    {"add", (PyCFunction)(void (*)(void))samples_add, METH_FASTCALL, samples_add_doc},
    {"extend", (PyCFunction)samples_extend, METH_O, samples_extend_doc},
    {"extended", (PyCFunction)(void (*)(void))samples_extended, METH_FASTCALL | METH_CLASS, samples_extended_doc},
    {"merge", (PyCFunction)samples_merge, METH_O, samples_merge_doc},
    {"adjust", (PyCFunction)(void (*)(void))samples_adjust, METH_FASTCALL, samples_adjust_doc},
    {"freeze", (PyCFunction)samples_freeze, METH_NOARGS, samples_freeze_doc},
    {"powers", (PyCFunction)samples_powers, METH_NOARGS, samples_powers_doc},
    {"_sorted", (PyCFunction)samples_sorted, METH_NOARGS, NULL},
    {"_common_weight", (PyCFunction)samples_common_weight, METH_NOARGS, NULL},
    {"_shares", (PyCFunction)samples_shares, METH_O, NULL},
    {0},
};

static PyGetSetDef samples_getset[] = {
    {"count", (getter)samples_get_count, NULL, NULL, NULL},
    {"mean", (getter)samples_get_mean, NULL, "The arithmetic mean; NaN when empty.", NULL},
    {"std", (getter)samples_get_std, NULL, "The standard deviation of the population.", NULL},
    {"median", (getter)samples_get_median, NULL, "The middle sample, or the mean of the middle two.", NULL},
    {"exact", (getter)samples_get_exact, NULL, "True if all samples are kept; False for a sketch.", NULL},
    {"_samples", (getter)samples_get_samples, NULL, NULL, NULL},
    {"_weights", (getter)samples_get_weights, NULL, NULL, NULL},
    {"_buckets", (getter)samples_get_buckets, NULL, NULL, NULL},
    {"_unit", (getter)samples_get_unit, NULL, NULL, NULL},
    {0},
};

static PyMemberDef samples_members[] = {
    {"limit", T_UINT, offsetof(Samples, sketch.limit), READONLY, NULL},
    {"sum", T_DOUBLE, offsetof(Samples, sketch.sum), READONLY, NULL},
    {"sum_squares", T_DOUBLE, offsetof(Samples, sketch.sum_squares), READONLY, NULL},
    {"min", T_DOUBLE, offsetof(Samples, sketch.min), READONLY, NULL},
    {"max", T_DOUBLE, offsetof(Samples, sketch.max), READONLY, NULL},
    {0},
};

static PyType_Slot samples_slots[] = {
    {Py_tp_doc, "Weighted samples, as stored: the C implementation of metricslib.sketch.Samples."},
    {Py_tp_new, samples_new},
    {Py_tp_init, samples_init},
    {Py_tp_dealloc, samples_dealloc},
    {Py_tp_methods, samples_methods},
    {Py_tp_getset, samples_getset},
    {Py_tp_members, samples_members},
    {Py_nb_bool, samples_bool},
    {0, NULL},
};

PyType_Spec samples_spec = {
    .name = "metricslib._speedups.Samples",
    .basicsize = sizeof(Samples),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = samples_slots,
};
