/* Resizes an RGB image as Pillow does, byte for byte, but computes only the pixels that a crop keeps, and stores them as
   [3, H, W].

   The method is that of Pillow's `Image.resize`: weights in float64, rounded to 22 bits after the point; the columns and
   the rows one after the other, in the order that the caller says, rounded to 8 bits in between. Sums of whole numbers
   do not depend on the order, so vectors give the same bytes. Compiled with -ffp-contract=off: a fused multiply-add would
   round weights differently. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define WITH_AVX2 __attribute__((target("avx2")))
static int has_avx2;
#endif

/* BITS after the point, of which the LOW ones are apart from the others in vectors, whose products have factors of 16. */
enum { BITS = 22, HALF = 1 << (BITS - 1), LOW = 11, CHANNELS = 4, STEP = 4 };

static const double PI = 3.14159265358979323846;

static double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Its two constants have the precision of float32. */
static double hamming(double x) {
    x = fabs(x);
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x *= PI;
    return sin(x) / x * (0.54f + 0.46f * cos(x));
}

/* Keys' cubic convolution with a = -1/2. */
static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= PI;
    return sin(x) / x;
}

static double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

static const struct filter { const char *name; double (*weight)(double); double support; } FILTERS[] = {
    {"box", box, 0.5}, {"bilinear", triangle, 1.0}, {"hamming", hamming, 1.0}, {"bicubic", cubic, 2.0},
    {"lanczos", lanczos, 3.0},
};

/* The weights of `count` pixels along one side: that of source pixel first[i] + t is all[i * taps + t]. Those of a pixel
   are `taps`, a multiple of STEP, with zeros where there are fewer; high and low are their parts in 16 bits. */
struct weights { Py_ssize_t count, taps, *first; int32_t *all; int16_t *high, *low; };

static void free_weights(struct weights *weights) {
    free(weights->first);
    free(weights->all);
    free(weights->high);
    free(weights->low);
}

/* How many source pixels have a weight, and the first of them. */
static Py_ssize_t window(double centre, double support, Py_ssize_t source, Py_ssize_t *first) {
    Py_ssize_t start = (Py_ssize_t)(centre - support + 0.5), end = (Py_ssize_t)(centre + support + 0.5);
    if (start < 0) start = 0;
    if (end > source) end = source;
    *first = start;
    return end - start;
}

/* For the pixels from `start` on of a side of `source` pixels that is resized to `target`. Returns 0 without memory. */
static int make_weights(struct weights *weights, const struct filter *filter, Py_ssize_t source, Py_ssize_t target,
                        Py_ssize_t start, Py_ssize_t count) {
    double scale = (double)(float)source / (double)target, stretch = scale < 1.0 ? 1.0 : scale;
    double support = filter->support * stretch, narrow = 1.0 / stretch, *exact;
    Py_ssize_t taps = 0;
    memset(weights, 0, sizeof *weights);
    weights->count = count;
    weights->first = malloc((size_t)count * sizeof *weights->first);
    if (!weights->first) return 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t length = window(((double)(start + i) + 0.5) * scale, support, source, &weights->first[i]);
        if (length > taps) taps = length;
    }
    taps = weights->taps = (taps + STEP - 1) / STEP * STEP;
    exact = malloc((size_t)taps * sizeof *exact);
    weights->all = calloc((size_t)(count * taps), sizeof *weights->all);
    weights->high = malloc((size_t)(count * taps) * sizeof *weights->high);
    weights->low = malloc((size_t)(count * taps) * sizeof *weights->low);
    if (!exact || !weights->all || !weights->high || !weights->low) {
        free(exact);
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        double centre = ((double)(start + i) + 0.5) * scale, sum = 0.0;
        Py_ssize_t first, length = window(centre, support, source, &first), shift = 0;
        for (Py_ssize_t t = 0; t < length; t++)
            sum += exact[t] = filter->weight(((double)(t + first) - centre + 0.5) * narrow);
        /* Zeros come first where they would reach beyond the side, so that vectors are read inside it. */
        if (first + taps > source && taps <= source) shift = first + taps - source;
        weights->first[i] = first - shift;
        for (Py_ssize_t t = 0; t < length; t++) {
            double weight = (sum != 0.0 ? exact[t] / sum : exact[t]) * (1 << BITS);
            weights->all[i * taps + shift + t] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
    }
    for (Py_ssize_t i = 0; i < count * taps; i++) {
        weights->high[i] = (int16_t)(weights->all[i] >> LOW);
        weights->low[i] = (int16_t)(weights->all[i] & ((1 << LOW) - 1));
    }
    free(exact);
    return 1;
}

static inline uint8_t rounded(int32_t sum) {
    sum >>= BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One row of columns: source [source][4] -> out [count][4]. */
static void resize_row(const uint8_t *row, Py_ssize_t source, const struct weights *columns, uint8_t *out) {
    for (Py_ssize_t x = 0; x < columns->count; x++) {
        const int32_t *weights = columns->all + x * columns->taps;
        Py_ssize_t first = columns->first[x], taps = source - first < columns->taps ? source - first : columns->taps;
        int32_t sums[CHANNELS] = {HALF, HALF, HALF, HALF};
        for (Py_ssize_t t = 0; t < taps; t++)
            for (int c = 0; c < CHANNELS; c++) sums[c] += weights[t] * row[(first + t) * CHANNELS + c];
        for (int c = 0; c < CHANNELS; c++) out[x * CHANNELS + c] = rounded(sums[c]);
    }
}

/* Bytes `start` to `end` of an output row: the weighted sum of `taps` rows that are `stride` bytes apart. */
static void sum_rows(const uint8_t *rows, Py_ssize_t stride, const int32_t *weights, Py_ssize_t taps, Py_ssize_t start,
                     Py_ssize_t end, uint8_t *out) {
    enum { BLOCK = 256 };
    int32_t sums[BLOCK];
    for (; start < end; start += BLOCK) {
        Py_ssize_t count = end - start < BLOCK ? end - start : BLOCK;
        for (Py_ssize_t i = 0; i < count; i++) sums[i] = HALF;
        for (Py_ssize_t t = 0; t < taps; t++)
            for (Py_ssize_t i = 0; i < count; i++) sums[i] += weights[t] * rows[t * stride + start + i];
        for (Py_ssize_t i = 0; i < count; i++) out[start + i] = rounded(sums[i]);
    }
}

#ifdef WITH_AVX2
/* Sums of the products with both parts of the weights, (high << LOW) + low, of 16-bit numbers by twos. */
#define ADD_PRODUCTS(high_sum, low_sum, numbers, high, low) \
    (high_sum) = _mm256_add_epi32((high_sum), _mm256_madd_epi16((numbers), (high))); \
    (low_sum) = _mm256_add_epi32((low_sum), _mm256_madd_epi16((numbers), (low)))
#define WHOLE(high_sum, low_sum) _mm256_add_epi32(_mm256_slli_epi32((high_sum), LOW), (low_sum))

/* Four rows at once. Each half of a vector has the four channels of two neighbours: r0 r1 g0 g1 b0 b1 x0 x1. */
WITH_AVX2 static void resize_four_rows(const uint8_t *const rows[4], const struct weights *columns, uint8_t *const outs[4]) {
    const __m256i by_channel = _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1,
                                                8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1);
    const __m256i by_half = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m128i half = _mm_set1_epi32(HALF);
    for (Py_ssize_t x = 0; x < columns->count; x++) {
        const int16_t *high = columns->high + x * columns->taps, *low = columns->low + x * columns->taps;
        Py_ssize_t offset = columns->first[x] * CHANNELS;
        __m256i highs[4], lows[4];
        __m128i sums[4];
        for (int r = 0; r < 4; r++) highs[r] = lows[r] = _mm256_setzero_si256();
        for (Py_ssize_t t = 0; t < columns->taps; t += STEP) {
            __m256i h = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(high + t))), by_half);
            __m256i l = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(low + t))), by_half);
            for (int r = 0; r < 4; r++) {
                __m128i pixels = _mm_loadu_si128((const __m128i *)(rows[r] + offset + t * CHANNELS));
                __m256i numbers = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pixels), by_channel);
                ADD_PRODUCTS(highs[r], lows[r], numbers, h, l);
            }
        }
        for (int r = 0; r < 4; r++) {
            __m256i whole = WHOLE(highs[r], lows[r]);
            __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
            sums[r] = _mm_srai_epi32(_mm_add_epi32(sum, half), BITS);
        }
        __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3]));
        uint32_t pixels[4];
        _mm_storeu_si128((__m128i *)pixels, bytes);
        for (int r = 0; r < 4; r++) memcpy(outs[r] + x * CHANNELS, &pixels[r], CHANNELS);
    }
}

/* As sum_rows, for as many whole vectors as there are; returns how many bytes. */
WITH_AVX2 static Py_ssize_t sum_rows_by_vectors(const uint8_t *rows, Py_ssize_t stride, const int16_t *high,
                                                const int16_t *low, Py_ssize_t taps, Py_ssize_t size, uint8_t *out) {
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(HALF);
    Py_ssize_t i = 0;
    for (; i + 32 <= size; i += 32) {
        __m256i highs[4], lows[4], sums[4];
        for (int q = 0; q < 4; q++) highs[q] = lows[q] = zero;
        for (Py_ssize_t t = 0; t < taps; t += 2) {
            int32_t two_high, two_low;
            memcpy(&two_high, high + t, 4);
            memcpy(&two_low, low + t, 4);
            __m256i h = _mm256_set1_epi32(two_high), l = _mm256_set1_epi32(two_low);
            __m256i upper = _mm256_loadu_si256((const __m256i *)(rows + t * stride + i));
            /* Of an odd number, the last one's partner has the weight 0, and need not exist. */
            __m256i lower = t + 1 < taps ? _mm256_loadu_si256((const __m256i *)(rows + (t + 1) * stride + i)) : zero;
            __m256i left = _mm256_unpacklo_epi8(upper, lower), right = _mm256_unpackhi_epi8(upper, lower);
            ADD_PRODUCTS(highs[0], lows[0], _mm256_unpacklo_epi8(left, zero), h, l);
            ADD_PRODUCTS(highs[1], lows[1], _mm256_unpackhi_epi8(left, zero), h, l);
            ADD_PRODUCTS(highs[2], lows[2], _mm256_unpacklo_epi8(right, zero), h, l);
            ADD_PRODUCTS(highs[3], lows[3], _mm256_unpackhi_epi8(right, zero), h, l);
        }
        for (int q = 0; q < 4; q++)
            sums[q] = _mm256_srai_epi32(_mm256_add_epi32(WHOLE(highs[q], lows[q]), half), BITS);
        __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
        _mm256_storeu_si256((__m256i *)(out + i), bytes);
    }
    return i;
}

WITH_AVX2 static Py_ssize_t split_by_vectors(const uint8_t *pixels, Py_ssize_t count, uint8_t *red, uint8_t *green,
                                             uint8_t *blue) {
    const __m128i by_channel = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    Py_ssize_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m128i part[4];
        for (int q = 0; q < 4; q++)
            part[q] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(pixels + (i + 4 * q) * CHANNELS)), by_channel);
        __m128i first = _mm_unpacklo_epi32(part[0], part[1]), second = _mm_unpacklo_epi32(part[2], part[3]);
        __m128i third = _mm_unpackhi_epi32(part[0], part[1]), fourth = _mm_unpackhi_epi32(part[2], part[3]);
        _mm_storeu_si128((__m128i *)(red + i), _mm_unpacklo_epi64(first, second));
        _mm_storeu_si128((__m128i *)(green + i), _mm_unpackhi_epi64(first, second));
        _mm_storeu_si128((__m128i *)(blue + i), _mm_unpacklo_epi64(third, fourth));
    }
    return i;
}
#endif

struct side { Py_ssize_t source, target, start, count; };

/* Pixels in memory: rows of `width` that are `stride` bytes apart. */
struct view { const uint8_t *pixels; Py_ssize_t width, height, stride; };

/* The part of a side that is needed, from `first` up to `last`, to which the weights become relative. */
static void narrow(struct side side, struct weights *weights, Py_ssize_t *first, Py_ssize_t *last) {
    *first = side.start, *last = side.start + side.count;
    if (!weights->count) return; /* not resized */
    *first = side.source, *last = 0;
    for (Py_ssize_t i = 0; i < weights->count; i++) {
        Py_ssize_t end = weights->first[i] + weights->taps;
        if (weights->first[i] < *first) *first = weights->first[i];
        if (end > *last) *last = end;
    }
    if (*last > side.source) *last = side.source;
    for (Py_ssize_t i = 0; i < weights->count; i++) weights->first[i] -= *first;
}

/* out [view.height, columns->count, 4] */
static void resize_columns(struct view view, const struct weights *columns, uint8_t *out) {
    Py_ssize_t y = 0, stride = columns->count * CHANNELS;
#ifdef WITH_AVX2
    for (; has_avx2 && columns->taps <= view.width && y + 4 <= view.height; y += 4) {
        const uint8_t *rows[4];
        uint8_t *outs[4];
        for (int r = 0; r < 4; r++) rows[r] = view.pixels + (y + r) * view.stride, outs[r] = out + (y + r) * stride;
        resize_four_rows(rows, columns, outs);
    }
#endif
    for (; y < view.height; y++) resize_row(view.pixels + y * view.stride, view.width, columns, out + y * stride);
}

/* out [view.width, 4], row y of the resized rows */
static void resize_rows(struct view view, const struct weights *rows, Py_ssize_t y, uint8_t *out) {
    const uint8_t *window = view.pixels + rows->first[y] * view.stride;
    Py_ssize_t beyond = view.height - rows->first[y], taps = beyond < rows->taps ? beyond : rows->taps;
    Py_ssize_t size = view.width * CHANNELS, done = 0, at = y * rows->taps;
#ifdef WITH_AVX2
    if (has_avx2) done = sum_rows_by_vectors(window, view.stride, rows->high + at, rows->low + at, taps, size, out);
#endif
    sum_rows(window, view.stride, rows->all + at, taps, done, size, out);
}

/* pixels [count, 4] -> planes [3][count], which are `plane` bytes apart */
static void split(const uint8_t *pixels, Py_ssize_t count, Py_ssize_t plane, uint8_t *out) {
    uint8_t *red = out, *green = red + plane, *blue = green + plane;
    Py_ssize_t x = 0;
#ifdef WITH_AVX2
    if (has_avx2) x = split_by_vectors(pixels, count, red, green, blue);
#endif
    for (; x < count; x++) {
        red[x] = pixels[x * CHANNELS];
        green[x] = pixels[x * CHANNELS + 1];
        blue[x] = pixels[x * CHANNELS + 2];
    }
}

/* pixels [rows.source, columns.source, 4] -> out [3, rows.count, columns.count]. Returns 0 without memory. */
static int resize(const uint8_t *pixels, struct side rows, struct side columns, const struct filter *filter,
                  int rows_first, uint8_t *out) {
    struct weights across = {0}, down = {0};
    struct view view = {pixels, 0, 0, columns.source * CHANNELS};
    Py_ssize_t left, right, top, bottom;
    uint8_t *shorter = NULL, *narrower = NULL, *line = malloc((size_t)(columns.count * CHANNELS));
    int whole = 0, is_tall = rows.source != rows.target, is_wide = columns.source != columns.target;
    if (!line) goto end;
    if (is_tall && !make_weights(&down, filter, rows.source, rows.target, rows.start, rows.count)) goto end;
    if (is_wide && !make_weights(&across, filter, columns.source, columns.target, columns.start, columns.count)) goto end;
    narrow(rows, &down, &top, &bottom);
    narrow(columns, &across, &left, &right);
    view.pixels += top * view.stride + left * CHANNELS;
    view.width = right - left, view.height = bottom - top;
    if (is_tall && is_wide && rows_first) {
        Py_ssize_t stride = view.width * CHANNELS;
        if (!(shorter = malloc((size_t)(rows.count * stride)))) goto end;
        for (Py_ssize_t y = 0; y < rows.count; y++) resize_rows(view, &down, y, shorter + y * stride);
        view = (struct view){shorter, view.width, rows.count, stride};
        is_tall = 0;
    }
    if (is_wide) {
        if (!(narrower = malloc((size_t)(view.height * columns.count * CHANNELS)))) goto end;
        resize_columns(view, &across, narrower);
        view = (struct view){narrower, columns.count, view.height, columns.count * CHANNELS};
    }
    for (Py_ssize_t y = 0; y < rows.count; y++) {
        if (is_tall) resize_rows(view, &down, y, line);
        split(is_tall ? line : view.pixels + y * view.stride, columns.count, rows.count * columns.count,
              out + y * columns.count);
    }
    whole = 1;
end:
    free(line);
    free(shorter);
    free(narrower);
    free_weights(&across);
    free_weights(&down);
    return whole;
}

/* The Arrow C data interface (arrow.apache.org/docs/format/CDataInterface.html), by which Pillow shows its memory. */
struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* The memory of `pixels` lists of four bytes; NULL with an exception for anything else. */
static const uint8_t *memory_of(PyObject *schema_capsule, PyObject *array_capsule, Py_ssize_t pixels) {
    const struct ArrowSchema *schema = PyCapsule_GetPointer(schema_capsule, "arrow_schema");
    const struct ArrowArray *array = schema ? PyCapsule_GetPointer(array_capsule, "arrow_array") : NULL;
    const struct ArrowArray *bytes;
    if (!array) return NULL;
    if (schema->release && array->release && !strcmp(schema->format, "+w:4") && schema->n_children == 1 &&
        !strcmp(schema->children[0]->format, "C") && array->length == pixels && !array->offset && array->n_children == 1) {
        bytes = array->children[0];
        if (bytes->length == pixels * CHANNELS && !bytes->offset && bytes->n_buffers == 2) return bytes->buffers[1];
    }
    PyErr_SetString(PyExc_ValueError, "expected pixels of four bytes in one block");
    return NULL;
}

static int is_inside(struct side side) {
    return side.source > 0 && side.target > 0 && side.source <= INT_MAX && side.target <= INT_MAX && side.start >= 0 &&
           side.count > 0 && side.start <= side.target - side.count;
}

PyDoc_STRVAR(resample_doc, "resample(pixels, size, resized, corner, kept, filter, rows_first, out)\n\n"
    "pixels: a buffer of bytes [height, width, 4], or the two capsules of Arrow that show one; size: (width, height);\n"
    "resized: width and height after resizing; corner: (left, top) of what is kept of it; kept: width and height of that;\n"
    "filter: box, bilinear, hamming, bicubic or lanczos; rows_first: whether rows are resized before columns;\n"
    "out: writable bytes [3, H, W]. Raises ValueError for what does not fit.");

static PyObject *resample(PyObject *module, PyObject *arguments) {
    PyObject *source, *result = NULL;
    struct side rows, columns;
    const char *name;
    const struct filter *filter = NULL;
    const uint8_t *pixels = NULL;
    Py_buffer out, buffer = {0};
    int done = 0, rows_first;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O(nn)(nn)(nn)(nn)spw*", &source, &columns.source, &rows.source, &columns.target,
                          &rows.target, &columns.start, &rows.start, &columns.count, &rows.count, &name, &rows_first, &out)) return NULL;
    for (size_t i = 0; i < sizeof FILTERS / sizeof *FILTERS; i++)
        if (!strcmp(name, FILTERS[i].name)) filter = &FILTERS[i];
    if (!filter || !is_inside(rows) || !is_inside(columns) || columns.source > PY_SSIZE_T_MAX / CHANNELS / rows.source ||
        columns.count > PY_SSIZE_T_MAX / CHANNELS / rows.count || out.len != 3 * rows.count * columns.count)
        PyErr_SetString(PyExc_ValueError, "sizes, filter and memory do not fit");
    else if (PyTuple_Check(source) && PyTuple_Size(source) == 2)
        pixels = memory_of(PyTuple_GetItem(source, 0), PyTuple_GetItem(source, 1), rows.source * columns.source);
    else if (!PyObject_GetBuffer(source, &buffer, PyBUF_SIMPLE)) {
        if (buffer.len == rows.source * columns.source * CHANNELS) pixels = buffer.buf;
        else PyErr_SetString(PyExc_ValueError, "expected four bytes for each pixel");
    }
    if (pixels) {
        Py_BEGIN_ALLOW_THREADS
        done = resize(pixels, rows, columns, filter, rows_first, out.buf);
        Py_END_ALLOW_THREADS
        result = done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    if (buffer.obj) PyBuffer_Release(&buffer);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {{"resample", resample, METH_VARARGS, resample_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_resample", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__resample(void) {
#ifdef WITH_AVX2
    has_avx2 = __builtin_cpu_supports("avx2") != 0;
#endif
    return PyModuleDef_Init(&definition);
}
