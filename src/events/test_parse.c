/* SPDX-License-Identifier: Apache-2.0 */
/* Tags as JSON, there and back; every field wrong once; the values of queries. */
#include "events/test_support.h"

#include "events/parse.h"

#define TIME "\"time\":\"2022-03-22T12:15:00.000Z\""
#define COOKIE "\"cookie\":\"c\\u0000/\\\"%é\""
#define COUNTRY "\"country\":\"PL\""
#define DEVICE "\"device\":\"TV\""
#define ACTION "\"action\":\"BUY\""
#define ORIGIN "\"origin\":\"\""
#define PRODUCT "\"product_id\":\"p\""
#define BRAND "\"brand_id\":\"b\""
#define CATEGORY "\"category_id\":\"k\""
#define PRICE "\"price\":-2147483648"
#define OUTER TIME "," COOKIE "," COUNTRY "," DEVICE "," ACTION "," ORIGIN
#define INNER PRODUCT "," BRAND "," CATEGORY "," PRICE
#define INFO(inner) "\"product_info\":{" inner "}"
#define TAG "{" OUTER "," INFO(INNER) "}"

struct parsed {
    int r;
    struct event_input input;
    struct event_fault fault;
    struct json_parser *parser;
};

static struct parsed parse(const char *json) {
    static char padded[32 << 10];
    struct parsed p = {0};
    size_t size = strlen(json);
    assert_true(size + JSON_PADDING <= sizeof padded);
    memcpy(padded, json, size);
    assert_int_equal(json_parser_new(sizeof padded, &p.parser), 0);
    p.r = event_parse_tag(p.parser, bytes_of(padded, size), &p.input, &p.fault);
    return p;
}

static void done(struct parsed *p) {
    json_parser_free(p->parser);
}

static void test_every_field(void **state UNUSED) {
    struct parsed p = parse(TAG);
    const struct event_tag *tag = &p.input.tag;
    assert_int_equal(p.r, 0);
    assert_true(tag->time_ms == 1647951300000);
    assert_true(bytes_equal(tag->cookie, BYTES_LITERAL("c\0/\"%é")));
    assert_int_equal(tag->device, EVENT_TV);
    assert_int_equal(tag->action, EVENT_BUY);
    assert_int_equal(tag->measure, INT32_MIN);
    assert_true(tag->product_is_text && bytes_equal(tag->product_text, text_of("p")));
    assert_true(bytes_equal(p.input.texts[EVENT_COLLECTION_COUNTRY], text_of("PL")));
    assert_true(bytes_equal(p.input.texts[EVENT_COLLECTION_ORIGIN], text_of("")));
    assert_true(bytes_equal(p.input.texts[EVENT_COLLECTION_BRAND], text_of("b")));
    assert_true(bytes_equal(p.input.texts[EVENT_COLLECTION_CATEGORY], text_of("k")));
    done(&p);
}

static void test_any_order_and_unknown_fields(void **state UNUSED) {
    struct parsed p = parse("{\"x\":{\"time\":1},\"price\":\"no\"," INFO(
        PRICE ",\"cookie\":7," CATEGORY "," BRAND
              ",\"product_id\":-9223372036854775808") "," ORIGIN "," ACTION "," DEVICE "," COUNTRY
                                                      "," COOKIE "," TIME ",\"y\":[null]}");
    assert_int_equal(p.r, 0);
    assert_false(p.input.tag.product_is_text);
    assert_true(p.input.tag.product_number == INT64_MIN);
    assert_true(bytes_equal(p.input.texts[EVENT_COLLECTION_CATEGORY], text_of("k")));
    done(&p);
}

/* As most readers take them: of duplicates the last one counts, and only that. */
static void test_duplicates(void **state UNUSED) {
    struct parsed p =
        parse("{\"cookie\":5," INFO("\"price\":\"no\"") "," OUTER ",\"country\":\"DE\"," INFO(
            "\"price\":null," INNER ",\"price\":3") "}");
    assert_int_equal(p.r, 0);
    assert_true(bytes_equal(p.input.texts[EVENT_COLLECTION_COUNTRY], text_of("DE")));
    assert_int_equal(p.input.tag.measure, 3);
    done(&p);
    p = parse("{" OUTER "," INFO(INNER) "," INFO(PRICE) "}");
    assert_int_equal(p.r, EVENT_E_FAULT); /* the second object is the one that counts */
    assert_string_equal(p.fault.field, "product_info.product_id");
    done(&p);
}

static void expect_fault(const char *json, enum event_fault_kind kind, const char *field) {
    struct parsed p = parse(json);
    assert_int_equal(p.r, EVENT_E_FAULT);
    assert_string_equal(p.fault.field, field);
    assert_int_equal(p.fault.kind, kind);
    assert_true(*field == '\0' || strstr(p.fault.sentence, field) != NULL);
    done(&p);
}

static void test_not_json(void **state UNUSED) {
    static const char *const texts[] = {"",
                                        "{",
                                        "{\"a\":01}",
                                        TAG "x",
                                        "{\"a\":\"\xff\"}",
                                        "{\"unknown\":nul," OUTER "," INFO(INNER) "}",
                                        "{" OUTER "," INFO(INNER) ",\"unknown\":1e999}"};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        expect_fault(texts[i], EVENT_FAULT_JSON, "");
    expect_fault("[]", EVENT_FAULT_INVALID, "");
    expect_fault("null", EVENT_FAULT_INVALID, "");
}

/* Each field left out, and each with values it does not take. */
static void test_wrong_fields(void **state UNUSED) {
    static const struct {
        const char *field;
        const char *member; /* as it is right */
        const char *wrong[8];
    } rows[] = {
        {"time", TIME, {"1647951300000", "\"2022-03-22T12:15:00Z\"", "\"\"", "null"}},
        {"cookie", COOKIE, {"\"\"", "5", "null", "[\"c\"]"}},
        {"country", COUNTRY, {"5", "null", "{}"}},
        {"device", DEVICE, {"\"tv\"", "\"\"", "0", "\"PHONE\"", "\"PCX\"", "\"P\""}},
        {"action", ACTION, {"\"SELL\"", "\"view\"", "true"}},
        {"origin", ORIGIN, {"1", "null"}},
        {"product_info.product_id", PRODUCT, {"1.0", "9223372036854775808", "true", "null"}},
        {"product_info.brand_id", BRAND, {"7", "[]"}},
        {"product_info.category_id", CATEGORY, {"7", "false"}},
        {"product_info.price", PRICE, {"2147483648", "-2147483649", "1.5", "1.0", "\"1\"", "null"}},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        static const char tag[] = TAG;
        const char *at = strstr(tag, rows[i].member);
        char text[1024];
        assert_non_null(at);
        int before = (int)(at - tag), name = (int)strcspn(rows[i].member, ":") + 1;
        const char *behind = at + strlen(rows[i].member);
        snprintf(text, sizeof text, "%.*s\"gone\":1%s", before, tag, behind);
        expect_fault(text, EVENT_FAULT_MISSING, rows[i].field);
        for (size_t w = 0; w < ARRAY_LENGTH(rows[i].wrong) && rows[i].wrong[w]; w++) {
            snprintf(text, sizeof text, "%.*s%.*s%s%s", before, tag, name, rows[i].member,
                     rows[i].wrong[w], behind);
            expect_fault(text, EVENT_FAULT_INVALID, rows[i].field);
        }
    }
    expect_fault("{" OUTER "}", EVENT_FAULT_MISSING, "product_info");
    expect_fault("{" OUTER ",\"product_info\":[]}", EVENT_FAULT_INVALID, "product_info");
}

/* The tag with a field given once more, as a text of so many bytes. */
static struct parsed parse_with(const char *name, size_t size) {
    char json[EVENT_TEXT_MAX + 1024];
    size_t n = strlen("{" OUTER ",\"");
    memcpy(json, "{" OUTER ",\"", n);
    n += (size_t)snprintf(json + n, sizeof json - n, "%s\":\"", name);
    memset(json + n, 'x', size);
    snprintf(json + n + size, sizeof json - n - size, "%s", "\"," INFO(INNER) "}");
    return parse(json);
}

static void test_lengths(void **state UNUSED) {
    static const char *const names[] = {"cookie", "country", "origin"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct parsed p = parse_with(names[i], EVENT_TEXT_MAX);
        assert_int_equal(p.r, 0);
        done(&p);
        p = parse_with(names[i], EVENT_TEXT_MAX + 1);
        assert_int_equal(p.r, EVENT_E_FAULT);
        assert_string_equal(p.fault.field, names[i]);
        done(&p);
    }
}

/* ---- And back ---- */

static struct bytes input_text(const void *context, uint32_t collection, uint32_t id UNUSED) {
    const struct event_input *input = context;
    return input->texts[collection];
}

static void expect_given_back(const char *json) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct parsed p = parse(json);
    assert_int_equal(p.r, 0);
    event_append_tag(&out, &p.input.tag, p.input.tag.cookie, input_text, &p.input);
    buffer_append_u8(&out, 0);
    assert_string_equal((const char *)out.data, json);
    done(&p);
}

static void test_given_back_as_it_came(void **state UNUSED) {
    expect_given_back(TAG);
    expect_given_back(
        "{\"time\":\"0000-01-01T00:00:00.001Z\"," COOKIE "," COUNTRY
        ",\"device\":\"PC\",\"action\":\"VIEW\"," ORIGIN
        "," INFO("\"product_id\":9223372036854775807," BRAND "," CATEGORY ",\"price\":0") "}");
}

/* ---- Queries ---- */

static void test_ranges(void **state UNUSED) {
    static const char *const wrong[] = {
        "",
        "_",
        "2022-03-22T12:15:00",
        "2022-03-22T12:15:00_",
        "_2022-03-22T12:15:00",
        "2022-03-22T12:15:00_2022-03-22T12:15:00Z",
        "2022-03-22T12:15:00_2022-03-22T12:14:59.999",
        "2022-03-22T12:15:00_2022-03-22T12:15:00_",
        "2022-03-22T12:15:00 2022-03-22T12:16:00",
    };
    struct event_fault fault;
    int64_t from, to;
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        assert_int_equal(event_parse_range(text_of(wrong[i]), &from, &to, &fault), EVENT_E_FAULT);
        assert_string_equal(fault.field, "time_range");
    }
    assert_int_equal(event_parse_range(text_of("2022-03-22T12:15:00_2022-03-22T12:15:00.001"),
                                       &from, &to, &fault),
                     0);
    assert_true(from == 1647951300000 && to == from + 1);
}

static void test_minutes(void **state UNUSED) {
    static const char *const wrong[] = {
        "2022-03-22T12:15:00_2022-03-22T12:25:01",
        "2022-03-22T12:15:00.001_2022-03-22T12:25:00",
        "2022-03-22T12:15:00_2022-03-22T12:26:00",
        "2022-03-22T12:15:01_2022-03-22T12:16:01",
    };
    struct event_fault fault;
    int64_t first;
    unsigned n;
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        assert_int_equal(event_parse_minutes(text_of(wrong[i]), &first, &n, &fault), EVENT_E_FAULT);
    assert_int_equal(event_parse_minutes(text_of("2022-03-22T12:15:00_2022-03-22T12:25:00.000"),
                                         &first, &n, &fault),
                     0);
    assert_true(first == 1647951300 / 60 && n == 10);
    assert_int_equal(
        event_parse_minutes(text_of("1969-12-31T23:59:00_1970-01-01T00:00:00"), &first, &n, &fault),
        0);
    assert_true(first == -1 && n == 1);
    assert_int_equal(
        event_parse_minutes(text_of("1970-01-01T00:00:00_1970-01-01T00:00:00"), &first, &n, &fault),
        0);
    assert_true(first == 0 && n == 0);
}

static void test_numbers_and_actions(void **state UNUSED) {
    static const char *const wrong[] = {"", "-1", "201", "1.0", " 1", "4294967296", "x"};
    struct event_fault fault;
    enum event_action action;
    unsigned n;
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        assert_int_equal(event_parse_number(text_of(wrong[i]), "limit", 200, &n, &fault),
                         EVENT_E_FAULT);
    assert_int_equal(event_parse_number(text_of("0200"), "limit", 200, &n, &fault), 0);
    assert_int_equal(n, 200);
    assert_false(event_parse_action(text_of("view"), &action));
    assert_false(event_parse_action(text_of(""), &action));
    assert_true(event_parse_action(text_of("BUY"), &action) && action == EVENT_BUY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field),
        cmocka_unit_test(test_any_order_and_unknown_fields),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_wrong_fields),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_given_back_as_it_came),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_minutes),
        cmocka_unit_test(test_numbers_and_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
