/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags: drawn the same from their number whatever the batch, as JSON that says what was drawn, with
 * the skew that is claimed. The model: what may show, what must, and when. Answers: right ones
 * pass, each way of being wrong is named.
 */
#include "cli/load_tags.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { TAGS = 20000, VISIBLE_NS = 1000 };

struct fixture {
    struct tag_source source;
    struct load_plan plan;
    struct load_progress progress;
    struct load_result result;
    struct tag_worker worker;
};

static void fixture_init(struct fixture *f) {
    *f = (struct fixture){.source = {.base = {.count = TAGS, .batch = 1, .seed = 7},
                                     .cookies = 100,
                                     .visible_ns = VISIBLE_NS,
                                     .queries = true}};
    assert_int_equal(tag_source_init(&f->source, os_real(), "2022-03-22T12:00:00"), 0);
    f->plan = (struct load_plan){.os = os_real(), .source = &f->source.base};
    f->worker.base = (struct load_worker){
        .plan = &f->plan, .progress = &f->progress, .result = &f->result, .n = 1};
    assert_int_equal(tag_ops.worker_init(&f->worker.base), 0);
}

static void fixture_deinit(struct fixture *f) {
    tag_ops.worker_deinit(&f->worker.base);
    tag_source_deinit(&f->source);
}

/* ---- Drawing ---- */

static struct bytes text_at(struct json_value v, const char *key) {
    struct json_value value;
    struct bytes text = BYTES_LITERAL("");
    assert_true(json_find(v, key, &value) && json_get_string(value, &text));
    return text;
}

static void check_text(struct fixture *f, const struct tag *tag) {
    struct buffer *text = &f->worker.expected;
    struct json_value root;
    struct json_value info;
    struct json_value value;
    int64_t price = 0;
    char expected[TAG_NAME_MAX];
    buffer_clear(text);
    tag_append(&f->worker.pieces, tag, text);
    assert_non_null(buffer_reserve(text, JSON_PADDING));
    assert_int_equal(json_parse(f->worker.parser, buffer_bytes(text), &root), 0);
    tag_datetime(tag->time_ms, true, expected);
    assert_memory_equal(text_at(root, "time").data, expected, 23);
    tag_cookie_name(&f->source, 0, tag->rank, expected);
    assert_true(bytes_equal(text_at(root, "cookie"), bytes_of_string(expected)));
    assert_true(
        bytes_equal(text_at(root, "action"), bytes_of_string(tag_action_names[tag->action])));
    if (tag->own)
        tag_own_name(&f->source, 0, TAG_OWN_ORIGIN, tag->origin, expected);
    else
        snprintf(expected, sizeof expected, "origin-%u", tag->origin);
    assert_true(bytes_equal(text_at(root, "origin"), bytes_of_string(expected)));
    assert_true(json_find(root, "product_info", &info));
    snprintf(expected, sizeof expected, "%" PRIu64, tag->number);
    assert_true(bytes_equal(text_at(info, "product_id"), bytes_of_string(expected)));
    assert_true(json_find(info, "price", &value) && json_get_i64(value, &price));
    assert_int_equal(price, tag->price);
}

static void test_tags_are_what_was_drawn(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f);
    uint64_t first = 0;
    uint64_t own = 0;
    uint64_t buys = 0;
    for (uint64_t i = 0; i < TAGS; i++) {
        struct tag tag;
        struct tag again;
        tag_draw(&f.source, i, &tag);
        tag_draw(&f.source, i, &again);
        assert_int_equal(tag.rank, again.rank);
        assert_int_equal(tag.price, again.price);
        assert_in_range(tag.time_ms - f.source.start_ms, i, i + TAG_LATE_MS);
        assert_true(tag.rank < f.source.cookies);
        check_text(&f, &tag);
        first += tag.rank == 0;
        own += tag.own;
        buys += tag.action;
    }
    /* (1/100)^(1/3) of them are the first cookie's. */
    assert_in_range(first, TAGS * 0.20, TAGS * 0.23);
    assert_in_range(own, TAGS / 80, TAGS / 50);
    assert_in_range(buys, TAGS / 9, TAGS / 7);
    fixture_deinit(&f);
}

static void test_heavy_cookies_have_four_fifths(void **state UNUSED) {
    enum { COOKIES = 100, HEAVY = 4 };
    struct tag_source source = {.base = {.seed = 7}, .cookies = COOKIES, .heavy = HEAVY};
    uint32_t tags[COOKIES] = {0};
    uint32_t heavy = 0;
    assert_int_equal(tag_source_init(&source, os_real(), "2022-03-22T12:00:00"), 0);
    for (uint64_t i = 0; i < TAGS; i++) {
        struct tag tag;
        tag_draw(&source, i, &tag);
        assert_true(tag.rank < COOKIES);
        tags[tag.rank]++;
    }
    for (unsigned i = 0; i < COOKIES; i++) {
        uint32_t mean = i < HEAVY ? TAGS * 4 / 5 / HEAVY : TAGS / 5 / (COOKIES - HEAVY);
        assert_in_range(tags[i], mean / 2, mean * 3 / 2);
        heavy += i < HEAVY ? tags[i] : 0;
    }
    assert_in_range(heavy, TAGS * 0.79, TAGS * 0.81);
    source.heavy = COOKIES;
    assert_int_equal(tag_source_init(&source, os_real(), "2022-03-22T12:00:00"), TAGS_E_HEAVY);
}

static void test_start(void **state UNUSED) {
    static const char *const bad[] = {"",
                                      "2022-03-22",
                                      "2022-03-22 12:00:00",
                                      "2022-02-30T12:00:00",
                                      "2022-03-22T24:00:00",
                                      "2022-03-22T12:00:60",
                                      "2022-03-22T12:00:00Z",
                                      "1969-12-31T23:59:59"};
    struct tag_source source = {.cookies = 5000};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        assert_int_equal(tag_source_init(&source, os_real(), bad[i]), TAGS_E_START);
    assert_int_equal(tag_source_init(&source, os_real(), "2024-02-29T23:59:30"), 0);
    assert_true(source.start_ms == 1709251140000);
    assert_true((source.cookies - 1) / source.every < TAG_OWN_COOKIES_MAX);
}

/* ---- The model and answers ---- */

/* Sends the first n tags and has them acknowledged at their number, in ns. */
static void send_tags(struct fixture *f, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        struct tag tag;
        tag_draw(&f->source, i, &tag);
        assert_int_equal(tag_model_sent(&f->worker.model, &tag), 0);
        tag_model_known(&f->worker.model, &tag, i);
    }
    f->worker.tags = n;
}

/* What goes wrong in an answer. */
enum lie { TRUTH, LACKS, TWICE, OTHER_PRICE, OLDEST_FIRST };

/* The profile of rank 0 after n tags: the newest of each action, from the model's own list. With a
 * space it is not as we would write it, so that it must be parsed. */
static void append_profile(struct fixture *f, enum lie lie, const char *space, struct buffer *out) {
    static const char *const names[] = {"views", "buys"};
    char cookie[TAG_NAME_MAX];
    tag_cookie_name(&f->source, 0, 0, cookie);
    buffer_append_format(out, "{%s\"cookie\":\"%s\"", space, cookie);
    for (unsigned action = 0; action < TAG_ACTIONS; action++) {
        const struct known_list *list = &f->worker.model.lists[0][action];
        uint32_t n = list->n < TAG_KEEP ? list->n : TAG_KEEP;
        const char *separator = "";
        buffer_append_format(out, ",\"%s\":[", names[action]);
        for (uint32_t i = 0; i < n; i++) {
            struct tag tag;
            uint32_t at = lie == OLDEST_FIRST ? i : list->n - 1 - i;
            tag_draw(&f->source, list->tags[at].number, &tag);
            if (lie == LACKS && i == n / 2)
                continue;
            tag.price += lie == OTHER_PRICE;
            for (int times = lie == TWICE ? 2 : 1; times > 0; times--) {
                buffer_append_string(out, separator);
                tag_append(&f->worker.pieces, &tag, out);
                separator = ",";
            }
        }
        buffer_append_string(out, "]");
    }
    buffer_append_string(out, "}");
    assert_int_equal(buffer_check(out), 0);
}

static void check_profile(struct fixture *f, enum lie lie, const char *space) {
    static const char *const words[] = {[LACKS] = "lacks tag",
                                        [TWICE] = "twice",
                                        [OTHER_PRICE] = "other contents",
                                        [OLDEST_FIRST] = "behind an older one"};
    struct buffer answer CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct profile_question q = {.tracked = true,
                                 .from_ms = f->source.start_ms,
                                 .to_ms = f->worker.model.newest_ms + 1,
                                 .limit = TAG_KEEP,
                                 .asked_ns = TAGS + VISIBLE_NS,
                                 .visible_ns = VISIBLE_NS};
    append_profile(f, lie, space, &answer);
    const char *wrong = profile_check(&f->worker, &q, buffer_bytes(&answer));
    if (lie == TRUTH)
        assert_null(wrong);
    else
        assert_non_null(strstr(wrong, words[lie]));
    /* What was acknowledged just now need not show; the age at which it did not is kept. */
    q.visible_ns = UINT64_MAX;
    if (lie == LACKS)
        assert_null(profile_check(&f->worker, &q, buffer_bytes(&answer)));
    /* Cut anywhere, it is wrong: the last byte, and one within a list. */
    for (size_t cut = 1; cut <= 1000; cut += 999)
        assert_non_null(profile_check(&f->worker, &q, bytes_of(answer.data, answer.size - cut)));
}

static void test_profiles(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f);
    send_tags(&f, TAGS);
    for (enum lie lie = TRUTH; lie <= OLDEST_FIRST; lie++) {
        f.worker.stalest_ns = 0;
        check_profile(&f, lie, "");
        check_profile(&f, lie, " ");
        assert_int_equal(f.worker.stalest_ns > VISIBLE_NS, lie == LACKS);
    }
    fixture_deinit(&f);
}

static void append_aggregate(struct fixture *f, const struct aggregate_question *q, uint64_t more,
                             struct buffer *out) {
    char own[TAG_NAME_MAX];
    char bucket[TAG_NAME_MAX];
    tag_own_name(&f->source, 0, TAG_OWN_BRAND, (unsigned)q->brand, own);
    buffer_append_string(out, "{\"columns\":[\"1m_bucket\",\"action\",\"brand_id\",\"count\","
                              "\"sum_price\"],\"rows\":[");
    for (unsigned i = 0; i < q->minutes; i++) {
        struct tag_sum sum = aggregate_expect(&f->worker, q, q->first_minute + i).known;
        tag_datetime((q->first_minute + i) * TAG_MINUTE_MS, false, bucket);
        buffer_append_format(out, "%s[\"%s\",\"%s\",\"%s\",\"%" PRIu64 "\",\"%" PRIu64 "\"]",
                             i ? "," : "", bucket, tag_action_names[q->action], own, sum.count,
                             sum.sum + more);
    }
    buffer_append_string(out, "]}");
}

static void test_aggregates(void **state UNUSED) {
    struct fixture f;
    struct buffer answer CLEANUP(buffer_deinit) = BUFFER_INIT;
    fixture_init(&f);
    send_tags(&f, TAGS);
    struct aggregate_question q = {.first_minute = tag_minute(f.source.start_ms),
                                   .minutes = 2,
                                   .origin = -1,
                                   .brand = 1,
                                   .category = -1};
    assert_int_equal(aggregate_expect(&f.worker, &q, q.first_minute).aged.count, 0);
    tag_model_age(&f.worker.model, UINT64_MAX);
    for (unsigned i = 0; i < q.minutes; i++) {
        struct tag_cell cell = aggregate_expect(&f.worker, &q, q.first_minute + i);
        assert_int_equal(cell.aged.count, cell.known.count);
        assert_int_equal(cell.aged.sum, cell.sent.sum);
        q.least[i] = cell.aged;
    }
    assert_true(q.least[0].count > 10); /* the fixture reaches this minute */
    append_aggregate(&f, &q, 0, &answer);
    assert_null(aggregate_check(&f.worker, &q, buffer_bytes(&answer)));
    buffer_clear(&answer);
    append_aggregate(&f, &q, 1, &answer);
    assert_non_null(strstr(aggregate_check(&f.worker, &q, buffer_bytes(&answer)), "are right"));
    q.minutes = 1;
    assert_non_null(strstr(aggregate_check(&f.worker, &q, buffer_bytes(&answer)), "one row"));
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags_are_what_was_drawn),
        cmocka_unit_test(test_heavy_cookies_have_four_fifths), cmocka_unit_test(test_start),
        cmocka_unit_test(test_profiles), cmocka_unit_test(test_aggregates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
