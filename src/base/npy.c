/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format, as NumPy documents it:
 *
 *   0   "\x93NUMPY"
 *   6   u8 major (1 to 3), u8 minor
 *   8   length of the header: u16 in version 1, u32 from version 2 on
 *   …   the header: a Python dict, {'descr': '<f4', 'fortran_order': False, 'shape': (n, d), },
 *       padded with spaces
 *   …   n * d float32
 *
 * The dict's keys may come in any order. It is read by looking for each key and matching what
 * follows it; a name that is not ours cannot stand in it.
 */
#include "base/npy.h"

#include <stdio.h>

enum { PREFIX_SIZE = 8, HEADER_MAX = 4096, DIMENSION_MAX = 1 << 26 };

void npy_deinit(struct npy *n) {
    buffer_deinit(&n->pending);
}

/* Moves the unread part to the front first, so that pending stays small. */
int npy_feed(struct npy *n, struct bytes chunk) {
    if (n->at && n->pending.size)
        memmove(n->pending.data, n->pending.data + n->at, n->pending.size - n->at);
    n->pending.size -= n->at;
    n->at = 0;
    buffer_append_bytes(&n->pending, chunk);
    return buffer_check(&n->pending);
}

void npy_finish(struct npy *n) {
    n->finished = true;
}

static int broken(struct npy *n, const char *sentence) {
    snprintf(n->sentence, sizeof n->sentence, "%s", sentence);
    return NPY_E_BROKEN;
}

static int more(struct npy *n, const char *what) {
    return n->finished ? broken(n, what) : NPY_E_MORE;
}

static struct bytes unread(const struct npy *n) {
    return bytes_of(n->pending.data + n->at, n->pending.size - n->at);
}

static void skip_spaces(struct bytes *text) {
    while (text->size && text->data[0] == ' ') {
        text->data++;
        text->size--;
    }
}

/* Takes literal from the front of text, and spaces before it. */
static bool take(struct bytes *text, const char *literal) {
    size_t size = strlen(literal);
    skip_spaces(text);
    if (text->size < size || memcmp(text->data, literal, size) != 0)
        return false;
    text->data += size;
    text->size -= size;
    return true;
}

static bool take_number(struct bytes *text, uint64_t *ret) {
    uint64_t number = 0;
    skip_spaces(text);
    size_t before = text->size;
    for (; text->size && text->data[0] >= '0' && text->data[0] <= '9'; text->data++, text->size--)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, text->data[0] - '0', &number))
            return false;
    *ret = number;
    return text->size < before;
}

/* What follows `'key':`, or empty. */
static struct bytes value_of(struct bytes dict, const char *key) {
    char quoted[32];
    int size = snprintf(quoted, sizeof quoted, "'%s'", key);
    const uint8_t *at = dict.size ? memmem(dict.data, dict.size, quoted, (size_t)size) : NULL;
    if (!at)
        return bytes_of(NULL, 0);
    at += size;
    struct bytes value = bytes_of(at, dict.size - (size_t)(at - dict.data));
    return take(&value, ":") ? value : bytes_of(NULL, 0);
}

static int read_dict(struct npy *n, struct bytes dict) {
    struct bytes descr = value_of(dict, "descr");
    struct bytes order = value_of(dict, "fortran_order");
    struct bytes shape = value_of(dict, "shape");
    uint64_t rows, dimension;
    if (!take(&descr, "'<f4'"))
        return broken(n, "the array must be of float32, little-endian ('<f4')");
    if (!take(&order, "False"))
        return broken(n, "the array must be in C order, not in Fortran's");
    if (!take(&shape, "(") || !take_number(&shape, &rows) || !take(&shape, ",") ||
        !take_number(&shape, &dimension) || !(take(&shape, ")") || take(&shape, ",)")))
        return broken(n, "the array must have two dimensions: (points, numbers)");
    if (dimension == 0 || dimension > DIMENSION_MAX)
        return broken(n, "the array's rows are empty or too long");
    n->rows = rows;
    n->dimension = dimension;
    return 0;
}

int npy_header(struct npy *n) {
    static const char ends[] = "the array ends in its header";
    if (n->header_read)
        return 0;
    if (n->sentence[0])
        return NPY_E_BROKEN;
    struct bytes text = unread(n);
    if (text.size < PREFIX_SIZE + 4)
        return more(n, ends);
    if (memcmp(text.data, "\x93NUMPY", 6) != 0 || text.data[6] < 1 || text.data[6] > 3)
        return broken(n, "this is not a .npy array of version 1 to 3");
    size_t start = text.data[6] == 1 ? 10 : 12;
    size_t size = text.data[6] == 1 ? load_u16(text.data + 8) : load_u32(text.data + 8);
    if (size > HEADER_MAX)
        return broken(n, "the array's header is too long");
    if (text.size < start + size)
        return more(n, ends);
    int r = read_dict(n, bytes_of(text.data + start, size));
    if (r)
        return r;
    n->at += start + size;
    n->header_read = true;
    return 0;
}

int npy_next(struct npy *n, struct bytes *ret_row) {
    struct bytes rest = unread(n);
    size_t size = (size_t)n->dimension * sizeof(float);
    if (n->sentence[0])
        return NPY_E_BROKEN;
    if (n->row == n->rows) {
        if (rest.size)
            return broken(n, "there are bytes behind the array");
        return n->finished ? NPY_E_END : NPY_E_MORE;
    }
    if (rest.size < size)
        return more(n, "the array ends before its last row");
    *ret_row = bytes_of(rest.data, size);
    n->at += size;
    n->row++;
    return 0;
}
