/* SPDX-License-Identifier: Apache-2.0 */
/* The registry, its bound, and every byte of the text form that a scraper looks at. */
#include "observe/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct metrics *m;

static int start(void **state) {
    (void)state;
    return metrics_new(&m);
}

static int stop(void **state) {
    (void)state;
    m = metrics_free(m);
    return 0;
}

/* The text form in static storage. */
static const char *render(void) {
    static char text[1 << 20];
    struct buffer out = BUFFER_INIT;
    metrics_render(m, &out);
    assert_int_equal(buffer_check(&out), 0);
    assert_true(out.size < sizeof text);
    if (out.size)
        memcpy(text, out.data, out.size);
    text[out.size] = '\0';
    buffer_deinit(&out);
    return text;
}

static void test_rows_are_well_formed(void **state) {
    (void)state;
    for (unsigned i = 0; i < METRICS; i++) {
        const struct metric_row *row = &metric_rows[i];
        size_t n = strlen(row->name);
        assert_true(strspn(row->name, "abcdefghijklmnopqrstuvwxyz_") == n);
        bool total = n > 6 && strcmp(row->name + n - 6, "_total") == 0;
        assert_int_equal(total, row->type == METRIC_COUNTER);
        assert_true(row->help[0] != '\0');
        assert_null(strpbrk(row->help, "\n\\"));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(metric_rows[k].name, row->name);
    }
}

/* A row without a series yet is announced all the same, so that a dashboard can be made of it. */
static void test_every_row_is_announced(void **state) {
    (void)state;
    const char *text = render();
    for (unsigned i = 0; i < METRICS; i++) {
        char line[256];
        (void)snprintf(line, sizeof line, "# HELP %s %s\n# TYPE %s ", metric_rows[i].name,
                       metric_rows[i].help, metric_rows[i].name);
        assert_non_null(strstr(text, line));
    }
}

static void test_counters_and_gauges(void **state) {
    (void)state;
    struct metric_series *a = metrics_series(m, METRIC_HTTP_REQUESTS, "/a", "GET", "200");
    struct metric_series *b = metrics_series(m, METRIC_HTTP_REQUESTS, "/b", "GET", "200");
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(a, metrics_series(m, METRIC_HTTP_REQUESTS, "/a", "GET", "200"));
    metric_add(a, 3);
    metric_add(a, 2);
    metric_set(metrics_series(m, METRIC_HTTP_CONNECTIONS), 7);
    const char *text = render();
    assert_non_null(strstr(
        text, "# HELP millrace_http_requests_total Requests answered.\n"
              "# TYPE millrace_http_requests_total counter\n"
              "millrace_http_requests_total{route=\"/a\",method=\"GET\",status=\"200\"} 5\n"
              "millrace_http_requests_total{route=\"/b\",method=\"GET\",status=\"200\"} 0\n"));
    assert_non_null(strstr(text, "# HELP millrace_http_connections Open connections.\n"
                                 "# TYPE millrace_http_connections gauge\n"
                                 "millrace_http_connections 7\n"));
}

static void test_label_values_are_escaped(void **state) {
    (void)state;
    metric_add(metrics_series(m, METRIC_BUILD_INFO, "a\"b\\c\nd"), 1);
    assert_non_null(strstr(render(), "millrace_build_info{version=\"a\\\"b\\\\c\\nd\"} 1\n"));
}

static void test_long_label_values_are_cut(void **state) {
    (void)state;
    char value[5000];
    memset(value, 'x', sizeof value);
    value[sizeof value - 1] = '\0';
    metric_add(metrics_series(m, METRIC_HTTP_REQUESTS, value, "GET", "200"), 1);
    const char *text = strstr(render(), "{route=\"xxx");
    assert_non_null(text);
    assert_true(strcspn(text, "}") < 1100);
    assert_int_equal(text[strcspn(text, "}") - 1], '"');
}

static uint64_t bucket(const char *text, const char *line) {
    const char *at = strstr(text, line);
    if (!at)
        fail_msg("no line %s", line);
    unsigned long long n = 0;
    assert_int_equal(sscanf(at + strlen(line), "%llu", &n), 1);
    return n;
}

static void test_histogram_of_seconds(void **state) {
    (void)state;
    struct metric_series *s = metrics_series(m, METRIC_JOURNAL_SYNC_SECONDS);
    static const uint64_t microseconds[] = {
        0, 1, 2, 3, 4, 5, 1000000, UINT64_C(1) << 25, (UINT64_C(1) << 25) + 1};
    for (size_t i = 0; i < ARRAY_LENGTH(microseconds); i++)
        metric_observe(s, microseconds[i]);
    const char *text = render();
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"1e-06\"} "), 2);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"2e-06\"} "), 3);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"4e-06\"} "), 5);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"8e-06\"} "), 6);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"1.048576\"} "), 7);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"33.554432\"} "), 8);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_bucket{le=\"+Inf\"} "), 9);
    assert_int_equal(bucket(text, "millrace_journal_fsync_seconds_count "), 9);
    assert_non_null(strstr(text, "millrace_journal_fsync_seconds_sum 68.10888"));
    assert_non_null(strstr(text, "# TYPE millrace_journal_fsync_seconds histogram\n"));
}

static void test_histogram_of_things(void **state) {
    (void)state;
    struct metric_series *s = metrics_series(m, METRIC_WORK_BATCH, "points");
    metric_observe(s, 3);
    metric_observe(s, 512);
    const char *text = render();
    assert_int_equal(
        bucket(text, "millrace_consumer_batch_records_bucket{consumer=\"points\",le=\"4\"} "), 1);
    assert_int_equal(
        bucket(text, "millrace_consumer_batch_records_bucket{consumer=\"points\",le=\"512\"} "), 2);
    assert_int_equal(bucket(text, "millrace_consumer_batch_records_sum{consumer=\"points\"} "),
                     515);
}

static void test_series_are_bounded(void **state) {
    (void)state;
    struct metric_series *last = NULL;
    for (unsigned i = 0; i < 5000; i++) {
        char path[16];
        (void)snprintf(path, sizeof path, "/%u", i);
        last = metrics_series(m, METRIC_HTTP_REQUESTS, path, "GET", "200");
        assert_non_null(last);
        metric_add(last, 1);
    }
    assert_ptr_equal(last, metrics_series(m, METRIC_HTTP_REQUESTS, "/more", "GET", "200"));
    assert_non_null(strstr(render(), "{route=\"/4095\","));
    assert_null(strstr(render(), "{route=\"/4096\","));
}

struct level {
    struct metrics_source source;
    uint64_t value;
};

static void collect(struct metrics_source *source, struct metrics *metrics) {
    struct level *level = CONTAINER_OF(source, struct level, source);
    metric_set(metrics_series(metrics, METRIC_DISK_FREE), level->value++);
}

static void test_sources_are_asked_at_each_rendering(void **state) {
    (void)state;
    struct level level = {.source = {.collect = collect}, .value = 41};
    metrics_add_source(m, &level.source);
    assert_non_null(strstr(render(), "millrace_disk_free_bytes 41\n"));
    assert_non_null(strstr(render(), "millrace_disk_free_bytes 42\n"));
}

static void test_series_add_up(void **state) {
    (void)state;
    metric_add(metrics_series(m, METRIC_HTTP_REQUESTS, "/a", "GET", "200"), 3);
    metric_add(metrics_series(m, METRIC_HTTP_REQUESTS, "/b", "GET", "503"), 4);
    metric_add(metrics_series(m, METRIC_HTTP_REQUESTS, "/b", "PUT", "500"), 5);
    metric_observe(metrics_series(m, METRIC_HTTP_SECONDS, "/a"), 1000);
    metric_observe(metrics_series(m, METRIC_HTTP_SECONDS, "/b"), 1024);
    assert_int_equal(metrics_sum(m, METRIC_HTTP_REQUESTS, NULL).value, 12);
    assert_int_equal(metrics_sum(m, METRIC_HTTP_REQUESTS, "status=\"5").value, 9);
    assert_int_equal(metrics_sum(m, METRIC_HTTP_REQUESTS, "route=\"/c\"").value, 0);
    struct metric_sum seconds = metrics_sum(m, METRIC_HTTP_SECONDS, NULL);
    assert_int_equal(seconds.buckets[10], 2); /* up to 1,024 us */
    assert_int_equal(seconds.sum, 2024);
    assert_true(metric_is_seconds(METRIC_HTTP_SECONDS));
    assert_false(metric_is_seconds(METRIC_HTTP_REQUESTS));
}

#define METRICS_TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void) {
    const struct CMUnitTest tests[] = {
        METRICS_TEST(test_rows_are_well_formed),
        METRICS_TEST(test_every_row_is_announced),
        METRICS_TEST(test_counters_and_gauges),
        METRICS_TEST(test_label_values_are_escaped),
        METRICS_TEST(test_long_label_values_are_cut),
        METRICS_TEST(test_histogram_of_seconds),
        METRICS_TEST(test_histogram_of_things),
        METRICS_TEST(test_series_are_bounded),
        METRICS_TEST(test_sources_are_asked_at_each_rendering),
        METRICS_TEST(test_series_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
