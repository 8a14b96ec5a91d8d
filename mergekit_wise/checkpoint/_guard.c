/* Keeps a process alive that reads a mapped file of which the end is gone.

   Linux and macOS answer such an access with SIGBUS, which ends the process. The handler here puts pages of zeros in the
   place of those that are gone, and takes note of it; whoever reads the file asks `faulted` afterwards, and discards what
   was read. Every other SIGBUS goes to the handler that was installed before. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 4096 };

/* A slot is free while `stop` is zero. It is written under the interpreter's lock, and read by the handler. */
static struct {
    volatile uintptr_t start, stop;
    volatile sig_atomic_t faulted;
} slots[SLOTS];
static volatile sig_atomic_t used; /* slots below this index may be taken */
static uintptr_t page;
static struct sigaction earlier;

static void on_bus_error(int number, siginfo_t *info, void *context) {
    uintptr_t at = (uintptr_t)info->si_addr;
    (void)number;
    (void)context;
    for (int i = 0; i < used; i++) {
        if (slots[i].start <= at && at < slots[i].stop) {
            uintptr_t first = at / page * page;
            slots[i].faulted = 1;
            if (mmap((void *)first, slots[i].stop - first, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
                MAP_FAILED)
                return;
        }
    }
    sigaction(SIGBUS, &earlier, NULL); /* the access is repeated, and then answered by the earlier handler */
}

/* Installed again whenever it was replaced, as faulthandler and others do. */
static int install(void) {
    struct sigaction now, ours = {0};
    if (sigaction(SIGBUS, NULL, &now))
        return -1;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error)
        return 0;
    earlier = now;
    ours.sa_sigaction = on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, NULL);
}

static PyObject *guard(PyObject *module, PyObject *map) {
    Py_buffer bytes;
    int i = 0;
    (void)module;
    if (install())
        return PyErr_SetFromErrno(PyExc_OSError);
    if (PyObject_GetBuffer(map, &bytes, PyBUF_SIMPLE))
        return NULL;
    while (i < SLOTS && slots[i].stop)
        i++;
    if (i < SLOTS) {
        slots[i].faulted = 0;
        slots[i].start = (uintptr_t)bytes.buf;
        slots[i].stop = ((uintptr_t)bytes.buf + (uintptr_t)bytes.len + page - 1) / page * page;
        if (used <= i)
            used = i + 1;
    }
    PyBuffer_Release(&bytes);
    return PyLong_FromLong(i < SLOTS ? i : -1);
}

static long slot_of(PyObject *number) {
    long i = PyLong_AsLong(number);
    if (i == -1 && PyErr_Occurred())
        return -1;
    if (i < 0 || i >= SLOTS) {
        PyErr_SetString(PyExc_ValueError, "no such slot");
        return -1;
    }
    return i;
}

static PyObject *faulted(PyObject *module, PyObject *number) {
    long i = slot_of(number);
    (void)module;
    return i < 0 ? NULL : PyBool_FromLong(slots[i].faulted);
}

static PyObject *release(PyObject *module, PyObject *number) {
    long i = slot_of(number);
    (void)module;
    if (i < 0)
        return NULL;
    slots[i].stop = 0;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"guard", guard, METH_O, "guard(map) -> the slot that watches the map, or -1 if all are taken."},
    {"faulted", faulted, METH_O, "faulted(slot) -> whether zeros were read in place of bytes that are gone."},
    {"release", release, METH_O, "release(slot) -> None; the map is gone."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_guard", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__guard(void) {
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    return PyModule_Create(&definition);
}
