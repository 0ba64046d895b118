/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: what is written is read again; what is cut short waits; what is no frame is refused. */
#include "base/error.h"
#include "tasks/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct bytes text(const char *s) {
    return bytes_of_string(s);
}

static void assert_text(struct bytes b, const char *s) {
    assert_true(bytes_equal(b, text(s)));
}

static void append_all(struct buffer *out) {
    wire_append_hello(out, &(struct wire_hello){.alive_ms = 1000,
                                                .commands = text("/etc/commands.json"),
                                                .import_directory = text("/srv/imports"),
                                                .import_hosts = text("a,b"),
                                                .url = text("http://127.0.0.1:8000"),
                                                .key = text("k"),
                                                .import_max_bytes = 1ull << 40});
    wire_append_run(out, 7, 1,
                    &(struct wire_run){text("long_task"), text("{\"total\":5}"), text("saved")});
    wire_append_progress(out, 7, 1, &(struct wire_progress){3, 5, text("3")});
    wire_append_ended(out, 7, 1,
                      &(struct wire_ended){.outcome = TASK_OUTCOME_SUCCEEDED,
                                           .progress = {5, 5, text("5")},
                                           .text = text("{}")});
    wire_end(out, wire_begin(out, WIRE_ALIVE, 0, 0));
    assert_int_equal(buffer_check(out), 0);
}

static struct wire_frame next(struct bytes in, size_t *at, enum wire_message message) {
    struct wire_frame frame;
    assert_int_equal(wire_next(in, at, &frame), 0);
    assert_int_equal(frame.message, message);
    return frame;
}

static void test_what_is_written_is_read(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct wire_hello hello;
    struct wire_run run;
    struct wire_progress progress;
    struct wire_ended ended;
    append_all(&out);
    struct bytes in = buffer_bytes(&out);
    size_t at = 0;
    assert_true(wire_read_hello(next(in, &at, WIRE_HELLO).body, &hello));
    assert_int_equal(hello.alive_ms, 1000);
    assert_text(hello.commands, "/etc/commands.json");
    assert_text(hello.import_directory, "/srv/imports");
    assert_text(hello.import_hosts, "a,b");
    assert_text(hello.url, "http://127.0.0.1:8000");
    assert_text(hello.key, "k");
    assert_int_equal(hello.import_max_bytes, 1ull << 40);
    struct wire_frame frame = next(in, &at, WIRE_RUN);
    assert_int_equal(frame.key, 7);
    assert_int_equal(frame.attempt, 1);
    assert_true(wire_read_run(frame.body, &run));
    assert_text(run.type, "long_task");
    assert_text(run.args, "{\"total\":5}");
    assert_text(run.saved, "saved");
    assert_true(wire_read_progress(next(in, &at, WIRE_PROGRESS).body, &progress));
    assert_int_equal(progress.current, 3);
    assert_int_equal(progress.total, 5);
    assert_text(progress.saved, "3");
    assert_true(wire_read_ended(next(in, &at, WIRE_ENDED).body, &ended));
    assert_int_equal(ended.outcome, TASK_OUTCOME_SUCCEEDED);
    assert_int_equal(ended.progress.current, 5);
    assert_text(ended.progress.saved, "5");
    assert_text(ended.text, "{}");
    assert_int_equal(next(in, &at, WIRE_ALIVE).body.size, 0);
    assert_int_equal(wire_next(in, &at, &frame), 1);
    assert_int_equal(at, in.size);
}

static void test_what_is_cut_waits(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    append_all(&out);
    size_t whole = 0;
    struct wire_frame frame = next(buffer_bytes(&out), &whole, WIRE_HELLO);
    for (size_t size = 0; size < whole; size++) {
        size_t at = 0;
        assert_int_equal(wire_next(bytes_of(out.data, size), &at, &frame), 1);
        assert_int_equal(at, 0);
    }
}

static void assert_no_frame(uint32_t size, uint8_t message) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct wire_frame frame;
    size_t at = 0;
    buffer_append_u32(&out, size);
    buffer_append_u8(&out, message);
    for (int i = 0; i < 100; i++)
        buffer_append_u8(&out, 0);
    assert_int_equal(wire_next(buffer_bytes(&out), &at, &frame), -EPROTO);
    assert_int_equal(at, 0);
}

static void test_what_is_no_frame_is_refused(void **state) {
    (void)state;
    assert_no_frame(0, WIRE_RUN);
    assert_no_frame(12, WIRE_RUN);
    assert_no_frame(WIRE_FRAME_MAX + 1, WIRE_RUN);
    assert_no_frame(UINT32_MAX, WIRE_RUN);
    assert_no_frame(13, 0);
    assert_no_frame(13, WIRE_ALIVE + 1);
}

static void test_bodies_are_bounded(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct wire_progress progress;
    struct wire_ended ended;
    struct wire_run run;
    buffer_append_u64(&out, 1);
    buffer_append_u64(&out, 2);
    buffer_append_u32(&out, TASK_SAVED_MAX + 1);
    for (int i = 0; i <= TASK_SAVED_MAX; i++)
        buffer_append_u8(&out, 'x');
    assert_false(wire_read_progress(buffer_bytes(&out), &progress));
    store_u32(out.data + 16, TASK_SAVED_MAX);
    out.size--;
    assert_true(wire_read_progress(buffer_bytes(&out), &progress));
    buffer_append_u8(&out, 'x'); /* a byte too many */
    assert_false(wire_read_progress(buffer_bytes(&out), &progress));
    buffer_clear(&out);
    buffer_append_u8(&out, TASK_OUTCOME_DIED); /* no worker can say that */
    for (int i = 0; i < 24; i++)
        buffer_append_u8(&out, 0);
    assert_false(wire_read_ended(buffer_bytes(&out), &ended));
    out.data[0] = WIRE_STOPPED;
    assert_true(wire_read_ended(buffer_bytes(&out), &ended));
    assert_false(wire_read_run(BYTES_LITERAL("\1\0\0\0"), &run));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_what_is_cut_waits),
        cmocka_unit_test(test_what_is_no_frame_is_refused),
        cmocka_unit_test(test_bodies_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
