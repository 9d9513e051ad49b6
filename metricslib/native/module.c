/* The module: its types, its state, and the functions for the forwarder's extension. */

#include "module.h"

static int speedups_exec(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    static const struct {
        size_t offset;
        const char *text;
    } texts[] = {
        {offsetof(module_state, str_perf_counter), "perf_counter"}, {offsetof(module_state, str_fold), "_fold"},
        {offsetof(module_state, str_wake), "_wake"},                {offsetof(module_state, str_change), "_change"},
        {offsetof(module_state, str_tagged_slowly), "_tagged"},     {offsetof(module_state, str_owner), "_owner"},
        {offsetof(module_state, str_exact), "exact"},               {offsetof(module_state, str_tagged), "tagged"},
    };
    static const struct {
        size_t offset;
        PyType_Spec *spec;
        const char *name;
    } types[] = {
        {offsetof(module_state, cell_type), &cell_spec, "Cell"},
        {offsetof(module_state, samples_type), &samples_spec, "Samples"},
        {offsetof(module_state, span_type), &span_spec, "Span"},
    };
    PyObject *capsule, *time;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        PyObject *text = PyUnicode_InternFromString(texts[i].text);
        if (!text)
            return -1;
        *(PyObject **)((char *)state + texts[i].offset) = text;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (!type)
            return -1;
        *(PyObject **)((char *)state + types[i].offset) = type;
        if (PyModule_AddObjectRef(module, types[i].name, type) < 0)
            return -1;
    }
    if (add_block_methods(state->span_type) < 0)
        return -1;
    if (!(capsule = PyCapsule_New((void *)&samples_api, SKETCH_API, NULL)))
        return -1;
    if (PyModule_AddObjectRef(module, "sketch_api", capsule) < 0) {
        Py_DECREF(capsule);
        return -1;
    }
    Py_DECREF(capsule);
    if (!(time = PyImport_ImportModule("time")))
        return -1;
    state->time_dict = Py_NewRef(PyModule_GetDict(time));
    Py_DECREF(time);
    time = PyDict_GetItemWithError(state->time_dict, state->str_perf_counter);
    if (time && PyCFunction_Check(time)) /* a replacement, such as freezegun's, is a Python function */
        state->perf_counter = Py_NewRef(time);
    return PyErr_Occurred() ? -1 : 0;
}

static int speedups_traverse(PyObject *module, visitproc visit, void *arg) {
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->cell_type);
    Py_VISIT(state->samples_type);
    Py_VISIT(state->span_type);
#ifdef METRICSLIB_VECTORCALL
    Py_VISIT(state->timed_code);
#endif
    Py_VISIT(state->distribution);
    Py_VISIT(state->gauge_change);
    Py_VISIT(state->system_clock);
    Py_VISIT(state->time_dict);
    Py_VISIT(state->perf_counter);
    return 0;
}

static int speedups_clear(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    PyObject *spare = state->spare;
    state->ending = 1;
    state->spare = NULL;
    if (spare) {
        PyTypeObject *type = Py_TYPE(spare);
        PyObject_GC_Del(spare);
        Py_DECREF(type);
    }
    Py_CLEAR(state->cell_type);
    Py_CLEAR(state->samples_type);
    Py_CLEAR(state->span_type);
#ifdef METRICSLIB_VECTORCALL
    Py_CLEAR(state->timed_code);
#endif
    Py_CLEAR(state->distribution);
    Py_CLEAR(state->gauge_change);
    Py_CLEAR(state->system_clock);
    Py_CLEAR(state->time_dict);
    Py_CLEAR(state->perf_counter);
    return 0;
}

static void speedups_free(void *module) {
    module_state *state = PyModule_GetState(module);
    speedups_clear(module);
    Py_CLEAR(state->str_perf_counter);
    Py_CLEAR(state->str_fold);
    Py_CLEAR(state->str_wake);
    Py_CLEAR(state->str_change);
    Py_CLEAR(state->str_tagged_slowly);
    Py_CLEAR(state->str_owner);
    Py_CLEAR(state->str_exact);
    Py_CLEAR(state->str_tagged);
}

static PyMethodDef speedups_methods[] = {
#ifdef METRICSLIB_VECTORCALL
    {"call_directly", call_directly, METH_O, NULL},
#endif
    {"method_of", method_of, METH_VARARGS, "method_of($module, type, name, doc, /)\n--\n\nReturn a method for a class of instruments."},
    {0},
};

static PyModuleDef_Slot speedups_slots[] = {
    {Py_mod_exec, speedups_exec},
#ifdef Py_mod_multiple_interpreters /* all state belongs to the module, but this is not tested with several interpreters */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef speedups_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "metricslib._speedups",
    .m_doc = "The C implementation of instruments. The Python files of the same names are the specification.",
    .m_size = sizeof(module_state),
    .m_methods = speedups_methods,
    .m_slots = speedups_slots,
    .m_traverse = speedups_traverse,
    .m_clear = speedups_clear,
    .m_free = speedups_free,
};

PyMODINIT_FUNC PyInit__speedups(void) { return PyModuleDef_Init(&speedups_module); }
