/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources cut into chunks: every record is in exactly one, with its number; where chunks end does
 * not depend on the pieces in which the source came, nor on where an earlier attempt ended.
 */
#include "tasks/handlers/cutter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { RECORD_MAX = 1000, CHUNKS_MAX = 64, SEEDS = 20 };

struct cut {
    struct buffer bodies; /* blocks */
    size_t n;
    uint64_t firsts[CHUNKS_MAX];
    uint64_t ends[CHUNKS_MAX]; /* `seen` at the end of each */
    uint64_t too_large;
    uint64_t records;
    int end;
    char sentence[128];
};

static void add_chunk(struct cut *cut, struct cutter *c) {
    struct bytes body;
    if (c->n == 0)
        return;
    assert_true(cut->n < CHUNKS_MAX);
    assert_int_equal(cutter_body(c, &body), 0);
    buffer_append_block(&cut->bodies, body);
    cut->firsts[cut->n] = c->first;
    cut->ends[cut->n++] = c->seen;
    cut->records += c->n;
    cutter_clear(c);
}

/* All that can be taken now. */
static int drain(struct cut *cut, struct cutter *c) {
    for (;;) {
        int r = cutter_next(c);
        if (r == CUTTER_E_TOO_LARGE)
            cut->too_large = c->seen;
        else if (r == 0)
            add_chunk(cut, c);
        else
            return r;
    }
}

/* In pieces of at most piece_max bytes, of a size that the seed draws. */
static struct cut cut_up(struct bytes source, uint64_t skip, size_t piece_max, unsigned seed) {
    struct cut cut = {.bodies = BUFFER_INIT};
    struct cutter c;
    cutter_init(&c, RECORD_MAX, skip);
    int r = CUTTER_E_MORE;
    for (size_t at = 0; r == CUTTER_E_MORE && at < source.size;) {
        seed = seed * 1103515245 + 12345;
        size_t size = 1 + (seed >> 8) % piece_max;
        size = size < source.size - at ? size : source.size - at;
        assert_int_equal(cutter_feed(&c, bytes_of(source.data + at, size)), 0);
        at += size;
        r = drain(&cut, &c);
    }
    if (r == CUTTER_E_MORE) {
        cutter_finish(&c);
        r = drain(&cut, &c);
    }
    add_chunk(&cut, &c);
    cut.end = r;
    (void)snprintf(cut.sentence, sizeof cut.sentence, "%s", c.sentence ? c.sentence : "");
    cutter_deinit(&c);
    return cut;
}

static struct bytes body_at(const struct cut *cut, size_t i) {
    struct reader r = reader_of(buffer_bytes(&cut->bodies));
    struct bytes body = {0};
    for (size_t k = 0; k <= i; k++)
        body = reader_block(&r);
    assert_false(r.failed);
    return body;
}

static struct cut cut_text(const char *text) {
    return cut_up(bytes_of_string(text), 0, 7, 1);
}

static void assert_one_chunk(const char *source, uint64_t first, const char *expected) {
    struct cut cut = cut_text(source);
    assert_int_equal(cut.end, CUTTER_E_END);
    assert_int_equal(cut.n, 1);
    assert_int_equal(cut.firsts[0], first);
    if (!bytes_equal(body_at(&cut, 0), bytes_of_string(expected)))
        fail_msg("%.*s", (int)body_at(&cut, 0).size, (const char *)body_at(&cut, 0).data);
    buffer_deinit(&cut.bodies);
}

static void test_lines_keep_their_numbers(void **state) {
    (void)state;
    assert_one_chunk("{\"a\":1}\n{\"b\":2}", 1, "{\"a\":1}\n{\"b\":2}\n");
    assert_one_chunk("x\n\n \r\ny\r\n\n", 1, "x\n\n\ny\n");
    assert_one_chunk("\n  \n\n {\"a\":1}\n", 4, "{\"a\":1}\n");
}

static void test_an_array_becomes_lines(void **state) {
    (void)state;
    assert_one_chunk("[1,2 , 3]", 1, "1\n2\n3\n");
    assert_one_chunk("\n[ {\"a\":\n  1,\r\n\"b\": \"x\\n\"},\n[2]]\n", 1,
                     "{\"a\":\t  1,\t\t\"b\": \"x\\n\"}\n[2]\n");
}

static void test_what_is_broken(void **state) {
    (void)state;
    static const struct {
        const char *source;
        uint64_t records;
        const char *sentence;
    } rows[] = {
        {"[1,2", 1, "the JSON array ends too early"},
        {"[1,2}", 1, "from there on it is no JSON array"},
        {"[1,2] 3", 2, "from there on it is no JSON array"},
        {"\x93NUMPY", 0, "the array ends in its header"},
        {"\x93NOTPYnothing like it", 0, "this is not a .npy array of version 1 to 3"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct cut cut = cut_text(rows[i].source);
        assert_int_equal(cut.end, CUTTER_E_BROKEN);
        assert_string_equal(cut.sentence, rows[i].sentence);
        assert_true(cut.records >= rows[i].records);
        buffer_deinit(&cut.bodies);
    }
}

static void test_nothing(void **state) {
    (void)state;
    static const char *const nothing[] = {"", "\n", " \t\r\n\n", "[]", " [ ] "};
    for (size_t i = 0; i < ARRAY_LENGTH(nothing); i++) {
        struct cut cut = cut_text(nothing[i]);
        assert_int_equal(cut.end, CUTTER_E_END);
        assert_int_equal(cut.n, 0);
        buffer_deinit(&cut.bodies);
    }
}

static void test_a_record_that_is_too_large(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer source = BUFFER_INIT;
    buffer_append_string(&source, "a\n");
    for (int i = 0; i < RECORD_MAX + 1; i++)
        buffer_append_u8(&source, 'x');
    buffer_append_string(&source, "\nb\n");
    struct cut cut = cut_up(buffer_bytes(&source), 0, 100, 1);
    assert_int_equal(cut.end, CUTTER_E_END);
    assert_int_equal(cut.too_large, 2);
    assert_true(bytes_equal(body_at(&cut, 0), bytes_of_string("a\n\nb\n")));
    buffer_deinit(&cut.bodies);
    cut = cut_up(buffer_bytes(&source), 2, 100, 1); /* seen before */
    assert_int_equal(cut.too_large, 0);
    assert_int_equal(cut.firsts[0], 3);
    buffer_deinit(&cut.bodies);
}

/* ---- Long sources ---- */

static void append_lines(struct buffer *out, unsigned seed) {
    for (unsigned i = 0; out->size < 5 * (size_t)CUTTER_CHUNK_BYTES / 2; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned draw = (seed >> 8) % 100;
        buffer_append_format(out, "{\"i\":%u,\"text\":\"%*s\"}\n", i, (int)(2 * draw), "");
        for (unsigned blank = 0; draw > 95 && blank < 20; blank++)
            buffer_append_u8(out, '\n');
        if (draw == 50)
            buffer_append_format(out, "%*s%d\n", RECORD_MAX + 1, "", 5);
    }
}

static void append_array(struct buffer *out, unsigned seed) {
    buffer_append_string(out, "[1");
    for (unsigned i = 0; out->size < 5 * (size_t)CUTTER_CHUNK_BYTES / 2; i++) {
        seed = seed * 1103515245 + 12345;
        buffer_append_format(out, ",\n{\"i\":%u,\"text\":\"%*s\"}", i, (int)((seed >> 8) % 200),
                             "");
    }
    buffer_append_string(out, "]");
}

static void append_npy(struct buffer *out, unsigned seed) {
    unsigned dimension = 1 + seed % 100;
    unsigned rows = 5 * CUTTER_CHUNK_BYTES / 2 / (4 * dimension);
    char dict[118];
    (void)snprintf(dict, sizeof dict,
                   "{'descr': '<f4', 'fortran_order': False, 'shape': (%u, %u), }", rows,
                   dimension);
    buffer_append(out, "\x93NUMPY\x01\x00", 8);
    buffer_append_u16(out, 118);
    buffer_append_format(out, "%-117s\n", dict);
    for (unsigned i = 0; i < rows * dimension; i++)
        buffer_append_u32(out, i);
}

static void assert_same(const struct cut *a, const struct cut *b) {
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->records, b->records);
    assert_memory_equal(a->firsts, b->firsts, a->n * sizeof a->firsts[0]);
    assert_true(bytes_equal(buffer_bytes(&a->bodies), buffer_bytes(&b->bodies)));
}

/* From the end of chunk i on, the chunks are those that the whole had. */
static void assert_resumes(struct bytes source, const struct cut *whole, size_t i) {
    struct cut rest = cut_up(source, whole->ends[i], 5000, (unsigned)i);
    assert_int_equal(rest.n, whole->n - i - 1);
    for (size_t k = 0; k < rest.n; k++) {
        assert_int_equal(rest.firsts[k], whole->firsts[i + 1 + k]);
        assert_true(bytes_equal(body_at(&rest, k), body_at(whole, i + 1 + k)));
    }
    buffer_deinit(&rest.bodies);
}

static void check_form(void (*append)(struct buffer *out, unsigned seed)) {
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        CLEANUP(buffer_deinit) struct buffer source = BUFFER_INIT;
        append(&source, seed);
        struct bytes bytes = buffer_bytes(&source);
        struct cut whole = cut_up(bytes, 0, bytes.size, seed);
        struct cut pieces = cut_up(bytes, 0, CUTTER_CHUNK_BYTES / 10, seed);
        assert_int_equal(whole.end, CUTTER_E_END);
        assert_true(whole.n >= 3);
        assert_same(&whole, &pieces);
        for (size_t i = 0; i < whole.n; i++)
            assert_resumes(bytes, &whole, i);
        buffer_deinit(&whole.bodies);
        buffer_deinit(&pieces.bodies);
    }
}

static void test_chunks_of_lines(void **state) {
    (void)state;
    check_form(append_lines);
}

static void test_chunks_of_an_array(void **state) {
    (void)state;
    check_form(append_array);
}

/* What is cut is an array again, and its rows are those of the source. */
static void test_chunks_of_rows(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer source = BUFFER_INIT;
    check_form(append_npy);
    append_npy(&source, 4);
    struct cut cut = cut_up(buffer_bytes(&source), 0, 1000, 1);
    uint32_t expected = 0;
    for (size_t i = 0; i < cut.n; i++) {
        struct npy npy = NPY_INIT;
        struct bytes row;
        assert_int_equal(npy_feed(&npy, body_at(&cut, i)), 0);
        npy_finish(&npy);
        assert_int_equal(npy_header(&npy), 0);
        assert_int_equal(npy.dimension, 5);
        while (npy_next(&npy, &row) == 0)
            for (size_t k = 0; k < 5; k++)
                assert_int_equal(load_u32(row.data + 4 * k), expected++);
        assert_string_equal(npy.sentence, "");
        npy_deinit(&npy);
    }
    assert_int_equal(expected, cut.records * 5);
    buffer_deinit(&cut.bodies);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_keep_their_numbers),
        cmocka_unit_test(test_an_array_becomes_lines),
        cmocka_unit_test(test_what_is_broken),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_a_record_that_is_too_large),
        cmocka_unit_test(test_chunks_of_lines),
        cmocka_unit_test(test_chunks_of_an_array),
        cmocka_unit_test(test_chunks_of_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
