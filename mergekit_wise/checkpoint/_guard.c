/* Keeps a process alive that reads a mapped file of which the end is gone.

   Linux and macOS answer such an access with SIGBUS, which ends the process. The handler here puts pages of zeros in the
   place of those that are gone, and takes note of it; whoever reads the file asks `faulted` afterwards, and discards what
   was read. Every other SIGBUS goes to the handler that was installed before.

   Besides, two calls to the system as Python has not got them: `advise` lets other threads run while pages are read from
   the disk, and `reserve` never writes zeros in place of a file system that cannot reserve space. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
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

static PyObject *answer(int error) {
    if (!error)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *advise(PyObject *module, PyObject *arguments) {
    Py_buffer bytes;
    Py_ssize_t start, length;
    int advice, error = EINVAL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*inn", &bytes, &advice, &start, &length))
        return NULL;
    if (start >= 0 && length >= 0 && start <= bytes.len && length <= bytes.len - start) {
        Py_BEGIN_ALLOW_THREADS
        error = madvise((char *)bytes.buf + start, (size_t)length, advice) ? errno : 0;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&bytes);
    return answer(error);
}

static PyObject *reserve(PyObject *module, PyObject *arguments) {
    long long size;
    int file, error = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "iL", &file, &size))
        return NULL;
#if defined(__linux__)
    Py_BEGIN_ALLOW_THREADS
    error = fallocate(file, 0, 0, (off_t)size) ? errno : 0;
    Py_END_ALLOW_THREADS
#endif
    return answer(error);
}

static PyMethodDef methods[] = {
    {"guard", guard, METH_O, "guard(map) -> the slot that watches the map, or -1 if all are taken."},
    {"faulted", faulted, METH_O, "faulted(slot) -> whether zeros were read in place of bytes that are gone."},
    {"release", release, METH_O, "release(slot) -> None; the map is gone."},
    {"advise", advise, METH_VARARGS, "advise(map, advice, start, length) -> None. Raises OSError."},
    {"reserve", reserve, METH_VARARGS, "reserve(file, size) -> None; the file's blocks, where the system can. Raises OSError."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_guard", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__guard(void) {
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    return PyModule_Create(&definition);
}
