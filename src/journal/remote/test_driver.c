/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The suite of all drivers: what driver.h promises, on a real engine. Nothing here knows an engine.
 *
 *   MILLRACE_TEST_JOURNAL='redis://127.0.0.1:6379/?prefix=LOG' build-debug/src/test-journal-driver
 *
 * Each test wants an empty log of its own: wherever the URL says LOG, it gets a name of this run.
 * Without the variable every test is skipped. The name of a test as an argument runs that alone.
 * tests/engines starts the engines and runs this (driver_suite.py); what only one engine knows is
 * told by
 *
 *   MILLRACE_TEST_JOURNAL_REFUSED   URLs, separated by blanks, that open must refuse
 *   MILLRACE_TEST_JOURNAL_WEAK      a word of the warning that open must give; without it, none may
 *                                   come
 *
 * And, for those who kill an engine meanwhile:
 *
 *   test-journal-driver endure   appends, and says each lsn once it is acknowledged, a line each,
 *                                until standard input ends; a reader checks it all meanwhile. Then
 *                                verifies.
 *   test-journal-driver verify N opens the log: 1 to N, at least, must be there, whole, in order.
 *
 *   test-journal-driver open     opens the log, once.
 *
 * They say why on standard error, and exit with 1, when something is not as promised. Here LOG is
 * not replaced.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "journal/driver.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 60000, /* for what must come to be */
    TIMEOUT_MS = 20000,
    BATCH_MAX = 64,
    ENGINES_URL_MAX = 1024,
};
#define URL_VARIABLE "MILLRACE_TEST_JOURNAL"
#define SECRET "sesame"

/* ---- A log under test ---- */

struct url {
    char text[ENGINES_URL_MAX];
    struct service_url parsed;
};

struct warnings {
    size_t n;
    char text[8 * LOG_WHY_MAX]; /* one after the other */
};

static void note_warning(void *context, const char *sentence) {
    struct warnings *w = context;
    size_t size = strlen(w->text);
    snprintf(w->text + size, sizeof w->text - size, "%s\n", sentence);
    w->n++;
    assert_null(strstr(sentence, SECRET));
}

/* The URL with every LOG replaced. */
static void url_init(struct url *u, const char *from, const char *name) {
    size_t size = 0;
    const char *why = NULL;
    while (*from && size + strlen(name) + 1 < sizeof u->text) {
        bool here = strncmp(from, "LOG", 3) == 0;
        size += (size_t)snprintf(u->text + size, sizeof u->text - size, here ? "%s" : "%.1s",
                                 here ? name : from);
        from += here ? 3 : 1;
    }
    u->text[size] = '\0';
    if (!service_url_parse(u->text, &u->parsed, &why))
        fail_msg("the URL %s", why);
}

/* A name that no other run, and no other test, has used. */
static void url_of_test(struct url *u) {
    static unsigned n;
    char name[64];
    uint64_t random;
    assert_int_equal(os_random(os_real(), &random, sizeof random), 0);
    snprintf(name, sizeof name, "test-%u-%016llx-", n++, (unsigned long long)random);
    url_init(u, getenv(URL_VARIABLE), name);
}

static int try_open(const struct url *u, uint64_t timeout_ms, struct warnings *w,
                    struct log **ret_log) {
    const struct log_driver *driver = log_driver_find(bytes_of_string(u->parsed.scheme));
    struct log_options options = {
        .url = &u->parsed, .timeout_ms = timeout_ms, .warn = w ? note_warning : NULL, .context = w};
    assert_non_null(driver);
    *ret_log = NULL;
    int r = driver->open(os_real(), &options, ret_log);
    assert_non_null(*ret_log);
    assert_ptr_equal((*ret_log)->driver, driver);
    return r;
}

static void close_log(struct log *l) {
    l->driver->close(l);
}

/* An engine that is busy makes what is missing slowly. */
static struct log *open_log(const struct url *u) {
    uint64_t until = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
    struct log *l;
    int r;
    while ((r = try_open(u, TIMEOUT_MS, NULL, &l)) == LOG_E_UNAVAILABLE &&
           os_monotonic_ns(os_real()) < until)
        close_log(l);
    if (r)
        fail_msg("open: %d, %s", r, l->why);
    return l;
}

/* ---- Messages: what they hold follows from lsn, part and size ---- */

static void fill(uint8_t *out, size_t size, uint64_t lsn, uint32_t part) {
    uint64_t seed = hash64_u64(lsn * 1000 + part);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(seed >> (i % 8 * 8)) ^ (uint8_t)(i >> 3) ^ (uint8_t)(i >> 11);
}

static struct log_message message_of(uint64_t lsn, uint32_t part, size_t body_size) {
    struct log_message m = {.lsn = lsn, .part = part};
    uint8_t *body = malloc(body_size + 1); /* not 0 */
    assert_non_null(body);
    fill(m.head, sizeof m.head, lsn + 7, part);
    store_u64(m.head, lsn);
    store_u32(m.head + 8, part);
    fill(body, body_size, lsn, part);
    m.body = bytes_of(body, body_size);
    return m;
}

static void messages_free(struct log_message *messages, size_t n) {
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)messages[i].body.data);
}

static uint64_t lsn_of(struct bytes message) {
    assert_true(message.size >= LOG_HEAD_BYTES);
    return load_u64(message.data);
}

static bool is_whole(struct bytes message) {
    if (message.size < LOG_HEAD_BYTES)
        return false;
    uint64_t lsn = load_u64(message.data);
    uint32_t part = load_u32(message.data + 8);
    struct log_message m = message_of(lsn, part, message.size - LOG_HEAD_BYTES);
    bool whole = memcmp(m.head, message.data, LOG_HEAD_BYTES) == 0 &&
                 bytes_equal(m.body, bytes_of(message.data + LOG_HEAD_BYTES, m.body.size));
    messages_free(&m, 1);
    return whole;
}

static size_t small_size(uint64_t lsn) {
    return hash64_u64(lsn) % 300;
}

/* Appends from first to last, in one call. */
static int try_append(struct log *l, uint64_t first, uint64_t last, uint64_t *ret_positions) {
    struct log_message messages[BATCH_MAX] = {0};
    size_t n = 0;
    for (uint64_t lsn = first; lsn <= last; lsn++)
        messages[n++] = message_of(lsn, 0, small_size(lsn));
    int r = l->driver->append(l, messages, n, ret_positions);
    messages_free(messages, n);
    return r;
}

static void append(struct log *l, uint64_t first, uint64_t last, uint64_t *ret_positions) {
    uint64_t positions[BATCH_MAX] = {0};
    int r = try_append(l, first, last, positions);
    if (r)
        fail_msg("append: %d, %s", r, l->why);
    for (size_t i = 1; i <= last - first; i++)
        assert_true(positions[i] > positions[i - 1]);
    if (ret_positions)
        memcpy(ret_positions, positions, (last - first + 1) * sizeof *positions);
}

/* ---- Reading ---- */

static struct log_reader *reader_at(struct log *l, uint64_t position) {
    struct log_reader *r = NULL;
    assert_int_equal(l->driver->reader_new(l, position, &r), 0);
    assert_non_null(r);
    assert_ptr_equal(r->driver, l->driver);
    return r;
}

static struct bytes read_next(struct log_reader *reader, uint64_t *ret_position) {
    struct bytes message = {0};
    int r = reader->driver->read(reader, PATIENCE_MS, &message, ret_position);
    if (r)
        fail_msg("read: %d, %s", r, reader->why);
    assert_true(is_whole(message));
    return message;
}

static void assert_end(struct log_reader *reader) {
    struct bytes message;
    uint64_t position;
    int r = reader->driver->read(reader, 1, &message, &position);
    if (r != LOG_E_END)
        fail_msg("read at the end: %d, %s", r, reader->why);
}

/* From position on the log has first to last, and no more. */
static void assert_log(struct log *l, uint64_t position, uint64_t first, uint64_t last) {
    struct log_reader *reader = reader_at(l, position);
    uint64_t at = 0, before = 0;
    for (uint64_t lsn = first; lsn <= last; lsn++, before = at) {
        assert_int_equal(lsn_of(read_next(reader, &at)), lsn);
        assert_true(at >= position && (lsn == first || at > before));
    }
    assert_end(reader);
    l->driver->reader_free(reader);
}

static void assert_last(struct log *l, uint64_t lsn, uint64_t position) {
    struct buffer out = BUFFER_INIT;
    uint64_t at = 0;
    buffer_append_string(&out, "before");
    int r = l->driver->last(l, &out, &at);
    if (r)
        fail_msg("last: %d, %s", r, l->why);
    struct bytes message = bytes_of(out.data + 6, out.size - 6);
    assert_memory_equal(out.data, "before", 6);
    assert_true(is_whole(message));
    assert_int_equal(lsn_of(message), lsn);
    assert_int_equal(at, position);
    buffer_deinit(&out);
}

/* ---- Following: by a thread, so without cmocka ---- */

static int complain(const char *what, int result, const char *why) {
    fprintf(stderr, "%s: %d, %s\n", what, result, why);
    return 1;
}

/* Follows the log from its oldest message until all lsns to last were there, whole, without gaps;
 * *ret_seen grows meanwhile. */
static int check_log(struct log *l, const atomic_ullong *last, atomic_ullong *ret_seen) {
    struct log_reader *reader = reader_at(l, 0);
    int r = 0;
    uint64_t seen = 0, at;
    struct bytes message;
    uint64_t patience = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
    while (!r && seen < *last) {
        int read = l->driver->read(reader, 100, &message, &at);
        if (read == LOG_E_UNAVAILABLE)
            os_sleep_ns(os_real(), 10000000);
        else if (read && read != LOG_E_END)
            r = complain("read", read, reader->why);
        else if (!read && !is_whole(message))
            r = complain("a message is damaged behind", (int)seen, "");
        else if (!read && lsn_of(message) > seen + 1)
            r = complain("a gap behind", (int)seen, "");
        else if (!read && lsn_of(message) > seen)
            *ret_seen = ++seen;
        if (!read)
            patience = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
        else if (os_monotonic_ns(os_real()) > patience)
            r = complain("nothing comes behind", (int)seen, reader->why);
    }
    l->driver->reader_free(reader);
    return r;
}

struct checker {
    struct log *log;
    atomic_ullong last; /* to be seen; moved down to what was acknowledged at the end */
    atomic_ullong seen;
    int result;
};

static void run_checker(void *argument) {
    struct checker *c = argument;
    c->result = check_log(c->log, &c->last, &c->seen);
}

/* ---- Tests ---- */

static int say_when_skipped(void **state) {
    (void)state;
    if (!getenv(URL_VARIABLE))
        print_message(URL_VARIABLE " names no engine: nothing is tested\n");
    return 0;
}

#define NEEDS_ENGINE()                                                                             \
    if (!getenv(URL_VARIABLE))                                                                     \
    skip()

static void test_an_empty_log(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    struct buffer out = BUFFER_INIT;
    uint64_t position;
    assert_int_equal(l->driver->last(l, &out, &position), LOG_E_END);
    assert_int_equal(out.size, 0);
    assert_log(l, 0, 1, 0);
    assert_int_equal(l->driver->trim(l, 0), 0);
    append(l, 1, 1, &position);
    assert_last(l, 1, position);
    buffer_deinit(&out);
    close_log(l);
    (void)state;
}

static void test_messages_stay_in_order_and_positions_grow(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    uint64_t positions[BATCH_MAX + 1] = {0}, lsn = 1;
    for (size_t n = 1; lsn + n <= BATCH_MAX; lsn += n++) {
        append(l, lsn, lsn + n - 1, positions + lsn);
        assert_true(positions[lsn] > positions[lsn - 1] || lsn == 1);
        assert_last(l, lsn + n - 1, positions[lsn + n - 1]);
    }
    assert_log(l, 0, 1, lsn - 1);
    for (uint64_t from = 1; from < lsn; from += 7)
        assert_log(l, positions[from], from, lsn - 1);
    assert_log(l, positions[lsn - 1] + 1, lsn, lsn - 1);
    close_log(l);
    (void)state;
}

static void test_parts_of_one_lsn_stay_in_order(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    struct log_message messages[6];
    uint64_t positions[6], at;
    for (uint32_t i = 0; i < 6; i++)
        messages[i] = message_of(10 + i / 3, i % 3, 100 * i);
    struct log_reader *follower = reader_at(l, 0);
    for (size_t i = 0; i < 6; i += 2) {
        assert_int_equal(l->driver->append(l, messages + i, 2, positions + i), 0);
        for (size_t k = i; k < i + 2; k++)
            assert_int_equal(load_u32(read_next(follower, &at).data + 8), k % 3);
    }
    l->driver->reader_free(follower);
    messages_free(messages, 6);
    assert_true(positions[3] > positions[2]);
    for (size_t from = 0; from < 6; from += 3) {
        struct log_reader *reader = reader_at(l, positions[from]);
        for (size_t i = from; i < 6; i++) {
            struct bytes message = read_next(reader, &at);
            assert_int_equal(lsn_of(message), 10 + i / 3);
            assert_int_equal(load_u32(message.data + 8), i % 3);
            assert_int_equal(at, positions[i]);
        }
        assert_end(reader);
        l->driver->reader_free(reader);
    }
    close_log(l);
    (void)state;
}

static void test_messages_of_every_size(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    size_t most = l->driver->message_bytes_max - LOG_HEAD_BYTES, sizes[BATCH_MAX], n = 0;
    struct log_message messages[BATCH_MAX];
    uint64_t positions[BATCH_MAX], at;
    sizes[n++] = 0;
    for (size_t size = 1; size < most && n + 4 < BATCH_MAX; size *= 4) {
        sizes[n++] = size;
        sizes[n++] = size - LOG_HEAD_BYTES < most ? size - LOG_HEAD_BYTES : size + 1;
    }
    sizes[n++] = most - 1;
    sizes[n++] = most;
    sizes[n++] = 0;
    sizes[n++] = most;
    for (size_t i = 0; i < n; i++)
        messages[i] = message_of(i + 1, 0, sizes[i]);
    int r = l->driver->append(l, messages, n, positions);
    messages_free(messages, n);
    if (r)
        fail_msg("append: %d, %s", r, l->why);
    struct log_reader *reader = reader_at(l, 0);
    for (size_t i = 0; i < n; i++) {
        struct bytes message = read_next(reader, &at);
        assert_int_equal(lsn_of(message), i + 1);
        assert_int_equal(message.size, sizes[i] + LOG_HEAD_BYTES);
        assert_int_equal(at, positions[i]);
    }
    l->driver->reader_free(reader);
    assert_last(l, n, positions[n - 1]);
    close_log(l);
    (void)state;
}

static void test_a_log_goes_on_with_its_next_owner(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    uint64_t positions[60];
    for (uint64_t owner = 0; owner < 3; owner++) {
        struct log *l = open_log(&u);
        if (owner > 0)
            assert_last(l, owner * 20, positions[owner * 20 - 1]);
        append(l, owner * 20 + 1, owner * 20 + 20, positions + owner * 20);
        assert_true(owner == 0 || positions[owner * 20] > positions[owner * 20 - 1]);
        assert_log(l, 0, 1, owner * 20 + 20);
        close_log(l);
    }
    (void)state;
}

static void test_a_second_open_fences_the_first(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    uint64_t position;
    struct log *first = open_log(&u);
    append(first, 1, 10, NULL);
    struct log *second = open_log(&u);
    for (int i = 0; i < 3; i++) { /* it is final */
        assert_int_equal(try_append(first, 11, 12, &position), LOG_E_FENCED);
        assert_true(strlen(first->why) > 0);
        if (i == 1)
            append(second, 11, 11, NULL);
    }
    append(second, 12, 20, NULL);
    close_log(first); /* ends nothing that is not its own */
    append(second, 21, 21, &position);
    assert_log(second, 0, 1, 21);
    assert_last(second, 21, position);
    close_log(second);
    (void)state;
}

/* Among what has been seen, or the next: what a reader of a log with repetitions relies on. */
static void assert_no_gaps(struct log *l, uint64_t last) {
    struct log_reader *reader = reader_at(l, 0);
    uint64_t seen = 0, at;
    while (seen < last) {
        uint64_t lsn = lsn_of(read_next(reader, &at));
        assert_true(lsn <= seen + 1);
        seen = lsn > seen ? lsn : seen;
    }
    l->driver->reader_free(reader);
}

static void test_the_same_may_be_appended_again(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    append(l, 1, 10, NULL);
    append(l, 11, 20, NULL);
    append(l, 11, 20, NULL);
    append(l, 11, 25, NULL);
    append(l, 26, 30, NULL);
    assert_no_gaps(l, 30);
    close_log(l);
    (void)state;
}

static void test_what_is_trimmed_goes_and_the_rest_stays(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    uint64_t positions[1000], at;
    struct bytes message;
    for (uint64_t lsn = 1; lsn <= 1000; lsn += 50)
        append(l, lsn, lsn + 49, positions + lsn - 1);
    assert_int_equal(l->driver->trim(l, positions[600]), 0);
    assert_log(l, positions[600], 601, 1000);
    struct log_reader *reader = reader_at(l, 0);
    uint64_t oldest = lsn_of(read_next(reader, &at));
    assert_in_range(oldest, 1, 601);
    assert_int_equal(at, positions[oldest - 1]);
    l->driver->reader_free(reader);
    assert_int_equal(l->driver->trim(l, positions[10]), 0); /* it is gone */
    assert_last(l, 1000, positions[999]);
    assert_int_equal(l->driver->trim(l, positions[999] + 1), 0);
    append(l, 1001, 1010, positions);
    assert_log(l, positions[0], 1001, 1010);
    reader = reader_at(l, 0);
    while (lsn_of(message = read_next(reader, &at)) < 1010)
        assert_true(at < positions[9]);
    assert_end(reader);
    l->driver->reader_free(reader);
    close_log(l);
    (void)state;
}

static void test_a_log_trimmed_to_nothing_goes_on(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    struct buffer out = BUFFER_INIT;
    uint64_t before[10], after[10], at = 0;
    append(l, 1, 10, before);
    assert_int_equal(l->driver->trim(l, before[9] + 1), 0);
    close_log(l);
    l = open_log(&u);
    int r = l->driver->last(l, &out, &at);
    assert_true(r == LOG_E_END || (r == 0 && at == before[9]));
    append(l, 11, 20, after);
    assert_true(after[0] > before[9]);
    assert_log(l, before[9] + 1, 11, 20);
    buffer_deinit(&out);
    close_log(l);
    (void)state;
}

static void test_readers_wait_beside_appends(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    struct checker checkers[3];
    struct os_thread *threads[3];
    for (size_t i = 0; i < ARRAY_LENGTH(checkers); i++) {
        checkers[i] = (struct checker){.log = l, .last = 600};
        assert_int_equal(
            os_thread_start(os_real(), "checker", run_checker, &checkers[i], &threads[i]), 0);
    }
    for (uint64_t lsn = 1, n = 1; lsn <= 600; lsn += n, n = n % 9 + 1)
        append(l, lsn, lsn + n - 1, NULL);
    for (size_t i = 0; i < ARRAY_LENGTH(checkers); i++) {
        os_thread_join(os_real(), threads[i]);
        assert_int_equal(checkers[i].result, 0);
    }
    close_log(l);
    (void)state;
}

static void test_a_reader_at_the_end_sees_what_comes(void **state) {
    NEEDS_ENGINE();
    struct url u;
    url_of_test(&u);
    struct log *l = open_log(&u);
    uint64_t position, at;
    struct log_reader *reader = reader_at(l, 0);
    assert_end(reader);
    for (uint64_t lsn = 1; lsn <= 5; lsn++) {
        append(l, lsn, lsn, &position);
        assert_int_equal(lsn_of(read_next(reader, &at)), lsn);
        assert_int_equal(at, position);
        assert_end(reader);
    }
    l->driver->reader_free(reader);
    l->driver->reader_free(NULL);
    close_log(l);
    (void)state;
}

/* ---- What is wrong with the engine, or with what it is asked ---- */

static void assert_refused(const struct url *u) {
    struct log *l;
    int r = try_open(u, TIMEOUT_MS, NULL, &l);
    if (r != LOG_E_REFUSED)
        fail_msg("%s: open gave %d, %s", u->text, r, l->why);
    if (strlen(l->why) < 10 || strstr(l->why, SECRET))
        fail_msg("%s: %s", u->text, l->why);
    close_log(l);
}

static void test_wrong_parameters_are_refused(void **state) {
    NEEDS_ENGINE();
    struct url u;
    char text[ENGINES_URL_MAX];
    const char *url = getenv(URL_VARIABLE), *more = getenv(URL_VARIABLE "_REFUSED");
    snprintf(text, sizeof text, "%s%cno-such-parameter=1", url, strchr(url, '?') ? '&' : '?');
    url_init(&u, text, "refused");
    assert_refused(&u);
    for (size_t size; more && *more; more += size + (more[size] == ' ')) {
        size = strcspn(more, " ");
        snprintf(text, sizeof text, "%.*s", (int)size, more);
        url_init(&u, text, "refused");
        assert_refused(&u);
    }
    (void)state;
}

static void test_weak_settings_are_named(void **state) {
    NEEDS_ENGINE();
    struct url u;
    struct warnings w = {0};
    struct log *l;
    const char *weak = getenv(URL_VARIABLE "_WEAK");
    url_of_test(&u);
    assert_int_equal(try_open(&u, TIMEOUT_MS, &w, &l), 0);
    if (weak ? !strstr(w.text, weak) : w.n > 0)
        fail_msg("%zu warnings: %s", w.n, w.text);
    close_log(l);
    (void)state;
}

/* The URL's scheme and parameters with other hosts. */
static void url_at_port(struct url *u, unsigned port) {
    char text[ENGINES_URL_MAX];
    const char *url = getenv(URL_VARIABLE), *scheme = strstr(url, "://");
    const char *rest = strchr(scheme + 3, '/');
    snprintf(text, sizeof text, "%.*s127.0.0.1:%u%s", (int)(scheme + 3 - url), url, port,
             rest ? rest : "");
    url_init(u, text, "unreachable");
}

static void assert_unavailable(const struct url *u, uint64_t timeout_ms) {
    struct log *l;
    uint64_t start = os_monotonic_ns(os_real());
    int r = try_open(u, timeout_ms, NULL, &l);
    uint64_t took_ms = (os_monotonic_ns(os_real()) - start) / 1000000;
    if (r != LOG_E_UNAVAILABLE)
        fail_msg("%s: open gave %d, %s", u->text, r, l->why);
    if (strlen(l->why) < 10 || strstr(l->why, SECRET))
        fail_msg("%s: %s", u->text, l->why);
    assert_in_range(took_ms, 0, timeout_ms + PATIENCE_MS / 6);
    close_log(l);
}

static void test_an_engine_that_is_not_there_is_unavailable(void **state) {
    NEEDS_ENGINE();
    struct url u;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s >= 0);
    assert_int_equal(bind(s, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&address, &size), 0);
    url_at_port(&u, ntohs(address.sin_port));
    assert_unavailable(&u, 300); /* nobody listens */
    assert_int_equal(listen(s, 8), 0);
    assert_unavailable(&u, 300); /* somebody does, and never answers */
    close(s);
    (void)state;
}

/* ---- endure and verify ---- */

static int open_patiently(struct url *u, struct log **ret_log) {
    uint64_t end = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
    url_init(u, getenv(URL_VARIABLE), "endure-");
    for (;;) {
        int r = try_open(u, 1000, NULL, ret_log);
        if (r != LOG_E_UNAVAILABLE || os_monotonic_ns(os_real()) > end)
            return r ? complain("open", r, (*ret_log)->why) : 0;
        close_log(*ret_log);
        os_sleep_ns(os_real(), 50000000);
    }
}

static int open_once(void) {
    static struct url u;
    struct log *l;
    url_init(&u, getenv(URL_VARIABLE), "endure-");
    int r = try_open(&u, 1000, NULL, &l);
    if (r)
        r = complain("open", r, l->why);
    close_log(l);
    return r;
}

static int verify(uint64_t last) {
    static struct url u;
    struct log *l;
    atomic_ullong all = last, seen = 0;
    int r = open_patiently(&u, &l);
    if (!r)
        r = check_log(l, &all, &seen);
    close_log(l);
    return r;
}

static bool input_ended(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}

/* Appends the same until it succeeds, as a journal does. */
static int append_for_certain(struct log *l, uint64_t first, uint64_t last) {
    uint64_t positions[BATCH_MAX];
    uint64_t end = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
    for (;;) {
        int r = try_append(l, first, last, positions);
        if (r != LOG_E_UNAVAILABLE || os_monotonic_ns(os_real()) > end)
            return r ? complain("append", r, l->why) : 0;
        os_sleep_ns(os_real(), 20000000);
    }
}

static int endure(void) {
    static struct url u;
    struct checker checker = {.last = UINT64_MAX};
    struct os_thread *thread;
    uint64_t acknowledged = 0;
    int r = open_patiently(&u, &checker.log);
    if (r || os_thread_start(os_real(), "checker", run_checker, &checker, &thread))
        return 1;
    while (!r && !input_ended()) {
        uint64_t n = hash64_u64(acknowledged) % 20 + 1;
        r = append_for_certain(checker.log, acknowledged + 1, acknowledged + n);
        if (r)
            break;
        acknowledged += n;
        printf("%llu\n", (unsigned long long)acknowledged);
        fflush(stdout);
    }
    checker.last = r ? 0 : acknowledged;
    os_thread_join(os_real(), thread);
    close_log(checker.log);
    return r || checker.result ? 1 : verify(acknowledged);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_log),
        cmocka_unit_test(test_messages_stay_in_order_and_positions_grow),
        cmocka_unit_test(test_parts_of_one_lsn_stay_in_order),
        cmocka_unit_test(test_messages_of_every_size),
        cmocka_unit_test(test_a_log_goes_on_with_its_next_owner),
        cmocka_unit_test(test_a_second_open_fences_the_first),
        cmocka_unit_test(test_the_same_may_be_appended_again),
        cmocka_unit_test(test_what_is_trimmed_goes_and_the_rest_stays),
        cmocka_unit_test(test_a_log_trimmed_to_nothing_goes_on),
        cmocka_unit_test(test_readers_wait_beside_appends),
        cmocka_unit_test(test_a_reader_at_the_end_sees_what_comes),
        cmocka_unit_test(test_wrong_parameters_are_refused),
        cmocka_unit_test(test_weak_settings_are_named),
        cmocka_unit_test(test_an_engine_that_is_not_there_is_unavailable),
    };
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL); /* as in the real program */
    if (argc > 1 && !getenv(URL_VARIABLE))
        return complain(URL_VARIABLE " names no engine", 0, "");
    if (argc == 2 && strncmp(argv[1], "test_", 5) == 0)
        cmocka_set_test_filter(argv[1]);
    if (argc == 2 && strcmp(argv[1], "open") == 0)
        return open_once();
    if (argc == 2 && strcmp(argv[1], "endure") == 0)
        return endure();
    if (argc == 3 && strcmp(argv[1], "verify") == 0)
        return verify(strtoull(argv[2], NULL, 10));
    return cmocka_run_group_tests(tests, say_when_skipped, NULL);
}
