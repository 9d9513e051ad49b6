/* The type Samples: the twin of samples.py over sketch.h and ranks.h. */

#include "module.h"
#include "ranks.h"

int limit_of(PyObject *number, uint32_t *limit) {
    unsigned long value = PyLong_AsUnsignedLong(number);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    *limit = value > INT32_MAX ? INT32_MAX : (uint32_t)value;
    return 0;
}

static int samples_extend_by(sketch *into, PyObject *values) {
    PyObject *fast = PySequence_Fast(values, "samples must be a sequence");
    if (!fast)
        return -1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        double value = PyFloat_AsDouble(PySequence_Fast_GET_ITEM(fast, i));
        if (value == -1.0 && PyErr_Occurred())
            goto fail;
        if (sketch_add(into, value, 1) < 0) {
            PyErr_NoMemory();
            goto fail;
        }
    }
    Py_DECREF(fast);
    return 0;
fail:
    Py_DECREF(fast);
    return -1;
}

static int samples_init(Samples *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"values", "limit", NULL};
    PyObject *values = NULL, *limit = NULL;
    uint32_t most = 256; /* EXACT in samples.py */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$O", names, &values, &limit))
        return -1;
    if (limit && limit_of(limit, &most) < 0)
        return -1;
    sketch_free(&self->sketch);
    sketch_init(&self->sketch, most);
    return values ? samples_extend_by(&self->sketch, values) : 0;
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

static PyObject *samples_from_sketch(PyTypeObject *type, sketch *from) {
    Samples *made;
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

PyDoc_STRVAR(samples_add_doc, "add($self, value, weight=1, /)\n--\n\nAdd one sample that stands for weight equal ones.");

static PyObject *samples_add(Samples *self, PyObject *const *args, Py_ssize_t nargs) {
    double value, weight = 1;
    if (nargs < 1 || nargs > 2)
        return PyErr_Format(PyExc_TypeError, "add() takes a value and a weight");
    if ((value = PyFloat_AsDouble(args[0])) == -1.0 && PyErr_Occurred())
        return NULL;
    if (nargs == 2 && (weight = PyFloat_AsDouble(args[1])) == -1.0 && PyErr_Occurred())
        return NULL;
    if (sketch_add(&self->sketch, value, weight) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_extend_doc, "extend($self, values, /)\n--\n\nAdd many samples of weight 1.");

static PyObject *samples_extend(Samples *self, PyObject *values) {
    if (samples_extend_by(&self->sketch, values) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_extended_doc, "extended($type, distribution, values, limit, /)\n--\n\n"
                                   "Return distribution, which stays as it is, with samples of weight 1 added.");

static PyObject *samples_extended(PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs) {
    Samples *made;
    Py_ssize_t count;
    uint32_t limit;
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "extended() takes a distribution, values and a limit");
    if ((count = PySequence_Size(args[1])) < 0 || limit_of(args[2], &limit) < 0)
        return NULL;
    if (!count)
        return Py_NewRef(args[0]);
    if (args[0] != Py_None && !PyObject_TypeCheck(args[0], type))
        return PyErr_Format(PyExc_TypeError, "not a distribution: %R", args[0]);
    if (!(made = samples_made(type, limit)))
        return NULL;
    if (args[0] != Py_None && sketch_copy(&made->sketch, &((Samples *)args[0])->sketch) < 0) {
        sketch_init(&made->sketch, limit);
        Py_DECREF(made);
        return PyErr_NoMemory();
    }
    if (samples_extend_by(&made->sketch, args[1]) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return (PyObject *)made;
}

PyDoc_STRVAR(samples_merge_doc, "merge($self, other, /)\n--\n\nAdd all of other, which stays as it is.");

static PyObject *samples_merge(Samples *self, PyObject *other) {
    if (!PyObject_TypeCheck(other, Py_TYPE(self)))
        return PyErr_Format(PyExc_TypeError, "not a distribution: %R", other);
    if (sketch_merge(&self->sketch, &((Samples *)other)->sketch) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(samples_freeze_doc, "freeze($self)\n--\n\nMake the numbers readable and return the distribution.");

static PyObject *samples_freeze(Samples *self, PyObject *Py_UNUSED(ignored)) {
    if (sketch_freeze(&self->sketch) < 0)
        return PyErr_NoMemory();
    return Py_NewRef(self);
}

/* -- what the Python side reads */

static int all_unit(const sketch *s) { return s->buckets ? !s->unit_known || s->unit == 1 : !s->weights; }

/* Weights are whole numbers where all are 1. */
static PyObject *weight_object(const sketch *s, double weight) {
    return all_unit(s) ? PyLong_FromDouble(weight) : PyFloat_FromDouble(weight);
}

static PyObject *samples_get_count(Samples *self, void *Py_UNUSED(closure)) {
    return weight_object(&self->sketch, self->sketch.count);
}

static PyObject *samples_get_exact(Samples *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(!self->sketch.buckets);
}

static PyObject *list_of(const double *values, uint32_t n, int whole) {
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list && i < n; i++) {
        PyObject *value = whole ? PyLong_FromDouble(values[i]) : PyFloat_FromDouble(values[i]);
        if (!value)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, value);
    }
    return list;
}

static PyObject *samples_get_samples(Samples *self, void *Py_UNUSED(closure)) {
    return list_of(self->sketch.samples, self->sketch.n, 0);
}

static PyObject *samples_get_weights(Samples *self, void *Py_UNUSED(closure)) {
    if (!self->sketch.weights)
        Py_RETURN_NONE;
    return list_of(self->sketch.weights, self->sketch.n, 0);
}

static PyObject *samples_get_buckets(Samples *self, void *Py_UNUSED(closure)) {
    const sketch_buckets *buckets = self->sketch.buckets;
    PyObject *dict;
    if (!buckets)
        Py_RETURN_NONE;
    if (!(dict = PyDict_New()))
        return NULL;
    for (uint32_t i = 0; i <= buckets->mask; i++) {
        PyObject *key, *weight = NULL;
        if (buckets->keys[i] == SKETCH_NO_KEY)
            continue;
        key = PyLong_FromLong(buckets->keys[i]);
        if (key)
            weight = weight_object(&self->sketch, buckets->weights[i]);
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
    return weight_object(&self->sketch, self->sketch.unit);
}

static PyObject *samples_sorted(Samples *self, PyObject *Py_UNUSED(ignored)) {
    const sketch *s = &self->sketch;
    uint32_t n = sketch_size(s);
    double *values = malloc((2 * (size_t)n + 1) * sizeof *values);
    PyObject *result;
    if (!values || sketch_sorted(s, values, values + n) < 0)
        result = PyErr_NoMemory();
    else
        result = Py_BuildValue("NN", list_of(values, n, 0), list_of(values + n, n, all_unit(s)));
    free(values);
    return result;
}

static PyObject *samples_common_weight(Samples *self, PyObject *Py_UNUSED(ignored)) {
    return weight_object(&self->sketch, sketch_common_weight(&self->sketch));
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

static PyObject *share_row(const sketch *s, const sketch_ranks *ranks, PyObject *percent) {
    sketch_share share;
    double number = PyFloat_AsDouble(percent), lines;
    if (number == -1.0 && PyErr_Occurred())
        return NULL;
    if (!isfinite(lines = sketch_lines(ranks, number)))
        return PyLong_FromDouble(lines); /* which raises what math.floor() does */
    if (!sketch_share_of(s, ranks, number, lines, &share))
        Py_RETURN_NONE;
    return Py_BuildValue("Ndddd", weight_object(s, share.weight), share.boundary, share.sum, share.sum_squares,
                         share.mean);
}

static PyObject *samples_shares(Samples *self, PyObject *percents) {
    const sketch *s = &self->sketch;
    sketch_ranks ranks = {0};
    PyObject *fast = PySequence_Fast(percents, "percents must be a sequence");
    PyObject *rows = fast ? PyList_New(PySequence_Fast_GET_SIZE(fast)) : NULL;
    if (rows && s->count && sketch_rank(s, &ranks) < 0) {
        PyErr_NoMemory();
        Py_CLEAR(rows);
    }
    for (Py_ssize_t i = 0; rows && i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = s->count ? share_row(s, &ranks, PySequence_Fast_GET_ITEM(fast, i)) : Py_NewRef(Py_None);
        if (!row)
            Py_CLEAR(rows);
        else
            PyList_SET_ITEM(rows, i, row);
    }
    free(ranks.values);
    Py_XDECREF(fast);
    return rows;
}

PyDoc_STRVAR(samples_powers_doc, "powers($self)\n--\n\nReturn the weight of the samples in (2**(p-1), 2**p] by p.");

static PyObject *samples_powers(Samples *self, PyObject *Py_UNUSED(ignored)) {
    enum { POWERS = SKETCH_MAX_POWER - SKETCH_MIN_POWER + 1 };
    const sketch *s = &self->sketch;
    uint32_t n = sketch_size(s);
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
        weight = weight_object(s, powers[i]);
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
    {"std", (getter)samples_get_std, NULL, "The population's standard deviation.", NULL},
    {"median", (getter)samples_get_median, NULL, "The middle sample, or the mean of the middle two.", NULL},
    {"exact", (getter)samples_get_exact, NULL, "Whether every sample is still kept as it was.", NULL},
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
    {Py_tp_doc, "Weighted samples, as stored: the twin of metricslib.samples.Samples."},
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
