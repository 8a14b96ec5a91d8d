/* (1 - alpha) * a + alpha * b in one pass over the bytes: decode, mix, sum, round.

   arithmetic.py does the same in a dozen passes of NumPy, with the same roundings and the same bytes, so an installation
   without a C compiler is only slower. Blocks stay in the first-level cache; every loop is written so that
   compilers turn it into vector instructions. Compiled with -ffp-contract=off: a fused multiply-add rounds once less. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* One copy of the function for each generation of processors, chosen when the module is loaded. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EVERY_PROCESSOR
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* Intel's and AMD's own conversions of float16, on processors that have them; detected when the module is loaded. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define WITH_F16C __attribute__((target("avx,f16c")))
static int has_f16c;

WITH_F16C static size_t decode_halves(const uint16_t *halves, size_t count, float *buffer) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(buffer + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(halves + i))));
    return i;
}

WITH_F16C static size_t encode_halves(const float *numbers, size_t count, uint16_t *halves) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((__m128i *)(halves + i), _mm256_cvtps_ph(_mm256_loadu_ps(numbers + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}
#define DETECT_F16C (has_f16c = __builtin_cpu_supports("f16c"))
#else
#define has_f16c 0
#define decode_halves(halves, count, buffer) 0
#define encode_halves(numbers, count, halves) 0
#define DETECT_F16C 0
#endif

enum kind { F32, BF16, F16 };
enum { BLOCK = 1024, LANES = 16 };

INLINE float as_float(uint32_t bits) { float number; memcpy(&number, &bits, 4); return number; }
INLINE uint32_t as_bits(float number) { uint32_t bits; memcpy(&bits, &number, 4); return bits; }

/* The exponent of float16 has five bits and is biased by 15, that of float32 eight and 127. */
INLINE float from_half(uint16_t half) {
    uint32_t shifted = (uint32_t)(half & 0x7FFF) << 13;
    uint32_t normal = shifted + (112u << 23);
    uint32_t special = shifted + (224u << 23);                                         /* infinity, NaN */
    uint32_t subnormal = as_bits(as_float(shifted + (113u << 23)) - as_float(113u << 23)); /* exact */
    uint32_t bits = shifted < (1u << 23) ? subnormal : shifted >= (31u << 23) ? special : normal;
    return as_float(bits | (uint32_t)(half & 0x8000) << 16);
}

INLINE uint16_t to_half(float number) {
    uint32_t bits = as_bits(number), size = bits & 0x7FFFFFFF;
    uint32_t normal = (size + 0xFFF + ((size >> 13) & 1) - (112u << 23)) >> 13;
    /* Adding 0.5 puts the last place of a subnormal float16 at the last place of float32, where the sum is rounded. */
    uint32_t subnormal = as_bits(as_float(size) + 0.5f) - as_bits(0.5f);
    uint32_t nan = 0x7C00 | ((size >> 13) & 0x3FF) | ((size & 0x7FE000) == 0);
    uint32_t half = size < (113u << 23) ? subnormal : size < (143u << 23) ? normal : 0x7C00;
    half = size > 0x7F800000 ? nan : half;
    return (uint16_t)(half | (bits >> 16 & 0x8000));
}

/* Half of the last kept place, less one unless that place is odd, carries exactly where rounding goes up. */
INLINE uint16_t to_bfloat16(float number) {
    uint32_t bits = as_bits(number);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
}

INLINE const float *decode(const char *data, enum kind kind, size_t start, size_t count, float *buffer) {
    const uint16_t *halves = (const uint16_t *)data + start;
    if (kind == F32) return (const float *)data + start;
    if (kind == BF16) for (size_t i = 0; i < count; i++) buffer[i] = as_float((uint32_t)halves[i] << 16);
    else for (size_t i = has_f16c ? decode_halves(halves, count, buffer) : 0; i < count; i++)
        buffer[i] = from_half(halves[i]);
    return buffer;
}

INLINE void encode(const float *numbers, enum kind kind, size_t start, size_t count, char *data) {
    uint16_t *halves = (uint16_t *)data + start;
    if (kind == BF16) for (size_t i = 0; i < count; i++) halves[i] = to_bfloat16(numbers[i]);
    else for (size_t i = has_f16c ? encode_halves(numbers, count, halves) : 0; i < count; i++)
        halves[i] = to_half(numbers[i]);
}

INLINE double total(const float *lanes) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

FOR_EVERY_PROCESSOR
static void mix_blocks(const char *a, enum kind a_kind, const char *b, enum kind b_kind, char *out, enum kind out_kind,
                       size_t count, float first, float second, double *moved, double *norm) {
    float x_buffer[BLOCK], y_buffer[BLOCK], out_buffer[BLOCK];
    *moved = *norm = 0;
    for (size_t start = 0; start < count; start += BLOCK) {
        size_t length = count - start < BLOCK ? count - start : BLOCK;
        const float *x = decode(a, a_kind, start, length, x_buffer), *y = decode(b, b_kind, start, length, y_buffer);
        float *mixed = out_kind == F32 ? (float *)out + start : out_buffer;
        float distances[LANES] = {0}, squares[LANES] = {0};
        size_t i = 0;
        for (; i + LANES <= length; i += LANES)
            for (int lane = 0; lane < LANES; lane++) {
                float p = x[i + lane], q = y[i + lane], difference = q - p;
                mixed[i + lane] = p * first + q * second;
                distances[lane] += difference * difference;
                squares[lane] += p * p;
            }
        for (; i < length; i++) {
            float difference = y[i] - x[i];
            distances[0] += difference * difference;
            squares[0] += x[i] * x[i];
            mixed[i] = x[i] * first + y[i] * second;
        }
        *moved += total(distances);
        *norm += total(squares);
        if (out_kind != F32) encode(mixed, out_kind, start, length, out);
    }
}

static int kind_of(const char *name, enum kind *kind) {
    const char *names[] = {"F32", "BF16", "F16"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) { *kind = (enum kind)i; return 1; }
    PyErr_Format(PyExc_ValueError, "unknown dtype: %s", name);
    return 0;
}

PyDoc_STRVAR(mix_doc, "mix(a, b, out, kinds, alpha): buffers of bytes; kinds of a, b, out, each F32, BF16 or F16.\n\n"
    "Writes (1 - alpha) * a + alpha * b to out; returns the sums of (b - a)^2 and of a^2.");

static PyObject *mix(PyObject *module, PyObject *arguments) {
    Py_buffer a, b, out;
    const char *names[3];
    double alpha, moved, norm;
    enum kind kinds[3];
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*w*(sss)d", &a, &b, &out, &names[0], &names[1], &names[2], &alpha)) return NULL;
    if (kind_of(names[0], &kinds[0]) && kind_of(names[1], &kinds[1]) && kind_of(names[2], &kinds[2])) {
        Py_ssize_t count = out.len / (kinds[2] == F32 ? 4 : 2);
        if (a.len != count * (kinds[0] == F32 ? 4 : 2) || b.len != count * (kinds[1] == F32 ? 4 : 2))
            PyErr_SetString(PyExc_ValueError, "a, b and out must have as many elements");
        else {
            Py_BEGIN_ALLOW_THREADS
            mix_blocks(a.buf, kinds[0], b.buf, kinds[1], out.buf, kinds[2], (size_t)count, (float)(1 - alpha), (float)alpha,
                       &moved, &norm);
            Py_END_ALLOW_THREADS
            result = Py_BuildValue("(dd)", moved, norm);
        }
    }
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {{"mix", mix, METH_VARARGS, mix_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    (void)DETECT_F16C;
    return PyModuleDef_Init(&definition);
}
