/* (1 - alpha) * a + alpha * b in one pass over the bytes: decode, mix, sum, round.

   arithmetic.py does the same in a dozen passes of NumPy, with the same roundings and the same bytes, so an installation
   without a C compiler is only slower. Blocks stay in the first-level cache; every loop is written so that
   compilers turn it into vector instructions. Two 16-bit inputs and an output of one dtype, the usual case, are mixed
   in registers, where the processor has AVX2. Compiled with -ffp-contract=off: a fused multiply-add rounds once less. */

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
#define WITH_AVX2 __attribute__((target("avx2,f16c")))
static int has_f16c, has_avx2;

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

static void detect(void) {
    has_f16c = __builtin_cpu_supports("f16c");
    has_avx2 = has_f16c && __builtin_cpu_supports("avx2");
}
#else
#define has_f16c 0
#define decode_halves(halves, count, buffer) 0
#define encode_halves(numbers, count, halves) 0
static void detect(void) {}
#endif

enum kind { F32, BF16, F16 };
enum { BLOCK = 1024, LANES = 16 };
#define WIDTH(kind) ((kind) == F32 ? 4 : 2)

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

#if defined(__GNUC__) && defined(__x86_64__)
/* The sums of a block, in two registers: of bfloat16 the even and the odd lanes, of float16 the lower and the upper. */
struct sums { __m256 distances[2], squares[2]; };

WITH_AVX2 INLINE __m256 mixed(__m256 p, __m256 q, __m256 first, __m256 second, struct sums *sums, int half) {
    __m256 difference = _mm256_sub_ps(q, p);
    sums->distances[half] = _mm256_add_ps(sums->distances[half], _mm256_mul_ps(difference, difference));
    sums->squares[half] = _mm256_add_ps(sums->squares[half], _mm256_mul_ps(p, p));
    return _mm256_add_ps(_mm256_mul_ps(q, second), _mm256_mul_ps(p, first));
}

/* As to_bfloat16, but for the shift. */
WITH_AVX2 INLINE __m256i rounded(__m256 numbers) {
    const __m256i below_half = _mm256_set1_epi32(0x7FFF), one = _mm256_set1_epi32(1), nan = _mm256_set1_epi32(0x7FC00000);
    __m256i bits = _mm256_castps_si256(numbers), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, below_half), odd);
    return _mm256_blendv_epi8(sum, nan, _mm256_castps_si256(_mm256_cmp_ps(numbers, numbers, _CMP_UNORD_Q)));
}

/* 16 elements lie in a register as they do in memory, and every second one is already where float32 has it. */
WITH_AVX2 INLINE void mix_bfloat16(const uint16_t *a, const uint16_t *b, uint16_t *out, __m256 first, __m256 second,
                                   struct sums *sums) {
    const __m256i upper = _mm256_set1_epi32((int)0xFFFF0000);
    __m256i x = _mm256_loadu_si256((const __m256i *)a), y = _mm256_loadu_si256((const __m256i *)b);
    __m256 even = mixed(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16)),
                        first, second, sums, 0);
    __m256 odd = mixed(_mm256_castsi256_ps(_mm256_and_si256(x, upper)), _mm256_castsi256_ps(_mm256_and_si256(y, upper)),
                       first, second, sums, 1);
    __m256i both = _mm256_blend_epi16(_mm256_srli_epi32(rounded(even), 16), rounded(odd), 0xAA);
    _mm256_storeu_si256((__m256i *)out, both);
}

WITH_AVX2 INLINE void mix_float16(const uint16_t *a, const uint16_t *b, uint16_t *out, __m256 first, __m256 second,
                                  struct sums *sums) {
    for (int half = 0; half < 2; half++) {
        __m256 p = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(a + 8 * half)));
        __m256 q = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(b + 8 * half)));
        __m128i halves = _mm256_cvtps_ph(mixed(p, q, first, second, sums, half), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(out + 8 * half), halves);
    }
}

/* The lanes of mix_blocks, from registers: lane i holds the sum over the elements i, i + 16, ... of a block. */
WITH_AVX2 INLINE double total_of(const __m256 *registers, int alternate) {
    float halves[2][8], lanes[LANES];
    _mm256_storeu_ps(halves[0], registers[0]);
    _mm256_storeu_ps(halves[1], registers[1]);
    for (int lane = 0; lane < LANES; lane++)
        lanes[lane] = alternate ? halves[lane % 2][lane / 2] : halves[lane / 8][lane % 8];
    return total(lanes);
}

/* As mix_blocks, with the same bytes and sums, up to the last whole block; returns how many elements those are. */
WITH_AVX2 INLINE size_t mix_halves(const uint16_t *a, const uint16_t *b, uint16_t *out, enum kind kind, size_t count,
                                   float first, float second, double *moved, double *norm) {
    __m256 one = _mm256_set1_ps(first), other = _mm256_set1_ps(second);
    size_t start = 0;
    for (; start + BLOCK <= count; start += BLOCK) {
        struct sums sums = {{_mm256_setzero_ps(), _mm256_setzero_ps()}, {_mm256_setzero_ps(), _mm256_setzero_ps()}};
        for (size_t i = start; i < start + BLOCK; i += LANES) {
            if (kind == BF16) mix_bfloat16(a + i, b + i, out + i, one, other, &sums);
            else mix_float16(a + i, b + i, out + i, one, other, &sums);
        }
        *moved += total_of(sums.distances, kind == BF16);
        *norm += total_of(sums.squares, kind == BF16);
    }
    return start;
}

WITH_AVX2 static size_t mix_all_bfloat16(const void *a, const void *b, void *out, size_t count, float first,
                                         float second, double *moved, double *norm) {
    return mix_halves(a, b, out, BF16, count, first, second, moved, norm);
}

WITH_AVX2 static size_t mix_all_float16(const void *a, const void *b, void *out, size_t count, float first,
                                        float second, double *moved, double *norm) {
    return mix_halves(a, b, out, F16, count, first, second, moved, norm);
}
#else
#define has_avx2 0
#define mix_all_bfloat16(a, b, out, count, first, second, moved, norm) 0
#define mix_all_float16(a, b, out, count, first, second, moved, norm) 0
#endif

static void mix_any(const char *a, const char *b, char *out, const enum kind *kinds, size_t count, double alpha,
                    double *moved, double *norm) {
    float first = (float)(1 - alpha), second = (float)alpha;
    size_t done = 0;
    *moved = *norm = 0;
    if (has_avx2 && kinds[0] == kinds[1] && kinds[1] == kinds[2] && kinds[0] != F32)
        done = kinds[0] == BF16 ? mix_all_bfloat16(a, b, out, count, first, second, moved, norm)
                                : mix_all_float16(a, b, out, count, first, second, moved, norm);
    mix_blocks(a + done * WIDTH(kinds[0]), kinds[0], b + done * WIDTH(kinds[1]), kinds[1], out + done * WIDTH(kinds[2]),
               kinds[2], count - done, first, second, moved, norm);
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
        Py_ssize_t count = out.len / WIDTH(kinds[2]);
        if (a.len != count * WIDTH(kinds[0]) || b.len != count * WIDTH(kinds[1]))
            PyErr_SetString(PyExc_ValueError, "a, b and out must have as many elements");
        else {
            Py_BEGIN_ALLOW_THREADS
            mix_any(a.buf, b.buf, out.buf, kinds, (size_t)count, alpha, &moved, &norm);
            Py_END_ALLOW_THREADS
            result = Py_BuildValue("(dd)", moved, norm);
        }
    }
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    PyBuffer_Release(&out);
    return result;
}

PyDoc_STRVAR(same_doc, "same(a, b): whether two buffers hold the same bytes, up to the first that differ.");

static PyObject *same(PyObject *module, PyObject *arguments) {
    Py_buffer a, b;
    int equal;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*", &a, &b)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    equal = a.len == b.len && !memcmp(a.buf, b.buf, (size_t)a.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    return PyBool_FromLong(equal);
}

static PyMethodDef methods[] = {
    {"mix", mix, METH_VARARGS, mix_doc}, {"same", same, METH_VARARGS, same_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    detect();
    return PyModuleDef_Init(&definition);
}
