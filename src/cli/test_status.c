/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch of a server: what is read of /metrics and /healthz, the rates of two readings, and what
 * is shown of them.
 */
#include "cli/status.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char metrics_before[] =
    "# HELP millrace_http_requests_total Requests answered.\n"
    "process_start_time_seconds 1000.5\n"
    "millrace_http_requests_total{route=\"/collections/{name}\",method=\"PUT\",status=\"200\"} "
    "100\n"
    "millrace_http_requests_total{route=\"/upsert\",method=\"POST\",status=\"503\"} 5\n"
    "millrace_http_request_seconds_bucket{route=\"/a/{id}\",le=\"0.001\"} 90\n"
    "millrace_http_request_seconds_bucket{route=\"/a/{id}\",le=\"0.01\"} 100\n"
    "millrace_http_request_seconds_bucket{route=\"/a/{id}\",le=\"+Inf\"} 100\n"
    "millrace_consumer_applied_records_total{consumer=\"points\"} 1000\n"
    "millrace_consumer_appended_records_total{consumer=\"points\"} 1100\n"
    "millrace_consumer_appended_records_total{consumer=\"events\"} 7\n";

static const char metrics_now[] =
    "process_start_time_seconds 1000.5\n"
    "millrace_http_requests_total{route=\"/collections/{name}\",method=\"PUT\",status=\"200\"} "
    "150\n"
    "millrace_http_requests_total{route=\"/upsert\",method=\"POST\",status=\"503\"} 15\n"
    "millrace_http_requests_total{route=\"/upsert\",method=\"POST\",status=\"200\"} 40\n"
    "millrace_http_request_seconds_bucket{route=\"/a/{id}\",le=\"0.001\"} 110\n"
    "millrace_http_request_seconds_bucket{route=\"/a/{id}\",le=\"0.01\"} 140\n"
    "millrace_http_request_seconds_bucket{route=\"/a/{id}\",le=\"+Inf\"} 140\n"
    "millrace_http_request_seconds_bucket{route=\"/b\",le=\"0.001\"} 60\n"
    "millrace_http_request_seconds_bucket{route=\"/b\",le=\"0.01\"} 60\n"
    "millrace_http_request_seconds_bucket{route=\"/b\",le=\"+Inf\"} 60\n"
    "millrace_consumer_applied_records_total{consumer=\"points\"} 3000\n"
    "millrace_consumer_appended_records_total{consumer=\"points\"} 3500\n"
    "millrace_consumer_appended_records_total{consumer=\"events\"} 7\n"
    "millrace_consumer_lag_records{consumer=\"points\"} 400\n"
    "millrace_consumer_lag_seconds{consumer=\"points\"} 0.25\n"
    "millrace_consumer_threads{consumer=\"points\"} 2\n"
    "millrace_consumer_busy_threads{consumer=\"points\"} 1\n"
    "millrace_consumer_dead_letters_total{consumer=\"points\"} 8\n" /* five are gone again */
    "millrace_consumer_dead_letters{consumer=\"points\"} 3\n"
    "millrace_journal_durable_lsn 123456\n"
    "process_resident_memory_bytes 1.5e+08\n"
    "millrace_memory_limit_bytes 1073741824\n"
    "nothing_of_ours 1\nmalformed{\nalso malformed}\n";

static const char health[] =
    "{\"status\":\"not ready\",\"version\":\"9.9\",\"parts\":{\"http\":{\"ready\":true},"
    "\"points\":{\"ready\":false,\"reason\":\"2 lanes are down: full\"}}}";

/* Two seconds apart. */
static void read_both(struct status_sample *before, struct status_sample *now) {
    *before = (struct status_sample){.at_ns = 1000000000};
    *now = (struct status_sample){.at_ns = 3000000000};
    status_read_metrics(before, bytes_of_string(metrics_before));
    status_read_metrics(now, bytes_of_string(metrics_now));
    assert_true(status_read_health(now, bytes_of_string(health)));
}

static void test_a_reading(void **state UNUSED) {
    struct status_sample before;
    struct status_sample now;
    read_both(&before, &now);
    assert_float_equal(now.requests, 205, 0);
    assert_float_equal(now.errors, 15, 0);
    assert_float_equal(now.durable_lsn, 123456, 0);
    assert_int_equal(now.n_kinds, 2);
    assert_string_equal(now.kinds[0].name, "events");
    assert_string_equal(now.kinds[1].name, "points");
    assert_float_equal(now.kinds[1].lag_records, 400, 0);
    assert_float_equal(now.kinds[1].busy, 1, 0);
    assert_int_equal(now.latency.n, 3);
    assert_float_equal(now.latency.counts[0], 170, 0);
    assert_string_equal(now.state, "not ready");
    assert_int_equal(now.n_parts, 2);
    assert_false(now.parts[1].ready);
    assert_string_equal(now.parts[1].reason, "2 lanes are down: full");
}

static void test_health_that_is_none(void **state UNUSED) {
    static const char *const texts[] = {"", "<html>", "[]", "{\"status\":1}",
                                        "{\"status\":\"ok\"}"};
    struct status_sample s = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        assert_false(status_read_health(&s, bytes_of_string(texts[i])));
}

static void test_rates(void **state UNUSED) {
    struct status_sample before;
    struct status_sample now;
    struct status_rates rates;
    read_both(&before, &now);
    assert_false(status_restarted(&before, &now));
    status_rates(&before, &now, &rates);
    assert_float_equal(rates.requests, 50, 1e-9);
    assert_float_equal(rates.errors, 5, 1e-9);
    assert_float_equal(rates.appended[1], 1200, 1e-9);
    assert_float_equal(rates.applied[1], 1000, 1e-9);
    assert_float_equal(rates.appended[0], 0, 1e-9);
    /* 80 of 100 were at most 1 ms: the median is 50/80 into that bucket, p99 19/20 into the next.
     */
    assert_float_equal(rates.latency_p50, 0.000625, 1e-9);
    assert_float_equal(rates.latency_p99, (float)(0.001 + 0.009 * 19 / 20), 1e-9);
    assert_true(rates.sync_p50 < 0);
    now.started = 2000;
    assert_true(status_restarted(&before, &now));
}

static void test_the_newest_values_are_kept(void **state UNUSED) {
    struct status_history h = {.n = 0};
    for (int i = 0; i < STATUS_HISTORY + 5; i++)
        status_remember(&h, i);
    assert_int_equal(h.n, STATUS_HISTORY);
    assert_float_equal(h.values[0], 5, 0);
    assert_float_equal(h.values[STATUS_HISTORY - 1], STATUS_HISTORY + 4, 0);
}

static void fill_view(struct status_view *view) {
    struct status_sample before;
    *view = (struct status_view){.address = "127.0.0.1:9001", .interval_ms = 1000, .known = true};
    read_both(&before, &view->sample);
    status_rates(&before, &view->sample, &view->rates);
    for (int i = 0; i < 60; i++)
        status_remember(&view->appended[1], i);
}

static const char *text_of(struct buffer *out) {
    buffer_append_u8(out, 0);
    assert_int_equal(buffer_check(out), 0);
    return (const char *)out->data;
}

/* Columns of the widest line, escape sequences apart. */
static unsigned widest(const char *text, unsigned *ret_lines) {
    unsigned most = 0;
    unsigned columns = 0;
    for (*ret_lines = 1; *text; text++) {
        if (*text == 033) {
            text += 2 + strspn(text + 2, "0123456789;?");
        } else if (*text == '\n') {
            columns = 0;
            (*ret_lines)++;
        } else if (*text != '\r' && ((unsigned char)*text & 0xc0) != 0x80) {
            columns++;
        }
        most = columns > most ? columns : most;
    }
    return most;
}

static void test_the_screen_fits_the_window(void **state UNUSED) {
    static const struct status_screen sizes[] = {
        {200, 60, true, true}, {80, 24, true, true}, {80, 24, false, false},
        {40, 10, true, true},  {10, 3, true, true},  {1, 1, false, true},
    };
    struct status_view view;
    fill_view(&view);
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
        unsigned lines;
        status_show_screen(&out, &view, &sizes[i]);
        const char *text = text_of(&out);
        assert_true(widest(text, &lines) <= sizes[i].columns);
        assert_true(lines <= sizes[i].rows);
        assert_int_equal(strstr(text, "\033[1m") != NULL, sizes[i].color);
    }
}

static void test_the_screen_says_it_all(void **state UNUSED) {
    static const char *const words[] = {
        "127.0.0.1:9001",
        "not ready",
        "50/s",
        "1200/s",
        "1000/s",
        "lag 400 records, 250 ms",
        "1 of 2 workers busy",
        "3 dead letters",
        "lsn 123456",
        "143M of 1.0G",
        "points: 2 lanes are down: full",
        "█",
    };
    const struct status_screen size = {120, 50, false, true};
    struct status_view view;
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    fill_view(&view);
    status_show_screen(&out, &view, &size);
    const char *text = text_of(&out);
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        if (!strstr(text, words[i]))
            fail_msg("%s is not in:\n%s", words[i], text);
}

static void test_the_line_and_the_object(void **state UNUSED) {
    struct status_view view;
    struct buffer line CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct buffer object CLEANUP(buffer_deinit) = BUFFER_INIT;
    fill_view(&view);
    status_show_line(&line, &view);
    assert_non_null(strstr(text_of(&line), "not ready; requests 50/s, p50 0.62 ms, p99 9.55 ms; "
                                           "events in 0/s, applied 0/s, lag 0 (0.00 ms), 0 dead; "
                                           "points in 1200/s, applied 1000/s, lag 400 (250 ms), "
                                           "3 dead; lsn 123456, sync p99 -"));
    status_show_json(&object, &view);
    assert_non_null(strstr(text_of(&object), "\"sync_p50_s\":null"));
    assert_non_null(strstr((const char *)object.data, "\"points\":{\"in_per_s\":1200"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reading),
        cmocka_unit_test(test_health_that_is_none),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_the_newest_values_are_kept),
        cmocka_unit_test(test_the_screen_fits_the_window),
        cmocka_unit_test(test_the_screen_says_it_all),
        cmocka_unit_test(test_the_line_and_the_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
