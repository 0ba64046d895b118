/* SPDX-License-Identifier: Apache-2.0 */
/* Invariant 1 with the real journal, on the real disk: a 2xx means that the record is durable. */
#include "http/http.h"
#include "http/test_client.h"
#include "os/file.h"

#include <unistd.h>

static char directory[] = "/tmp/millrace-http-XXXXXX";
static struct journal *journal;
static struct metrics *metrics;
static struct http_server *server;
static struct socket_address address;
static _Atomic unsigned appended;

static unsigned render(struct http_request *r, enum http_write_outcome outcome,
                       struct buffer *body) {
    assert_int_equal(outcome, HTTP_WRITE_DURABLE);
    const lsn_t *lsn = http_state(r);
    buffer_append_format(body, "%llu", (unsigned long long)*lsn);
    return 200;
}

static void on_write(void *context, struct http_request *r) {
    (void)context;
    struct journal_record record = {.kind = JOURNAL_KIND_EVENTS, .payload = http_body(r)};
    int condition = journal_append(journal, &record, 1);
    if (condition) {
        http_fail_journal(r, condition);
        return;
    }
    lsn_t *lsn = arena_alloc(http_arena(r), sizeof *lsn);
    assert_non_null(lsn);
    *lsn = record.lsn;
    http_set_state(r, lsn);
    http_await_write(r, &(struct http_write){.first = *lsn, .last = *lsn, .render = render});
    atomic_fetch_add(&appended, 1);
}

static const struct http_route routes[] = {{.method = HTTP_POST,
                                            .path = "/write",
                                            .handler = on_write,
                                            .flags = HTTP_ROUTE_WRITES,
                                            .query = ""}};

static void begin(bool no_thread) {
    memcpy(directory + sizeof directory - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(directory));
    const struct journal_options options = {
        .sync = JOURNAL_SYNC_GROUP, .no_thread = no_thread, .sync_deadline_ms = WAIT_MS};
    struct journal_recovery recovery;
    assert_int_equal(journal_open(os_real(), directory, &options, &journal, &recovery), 0);
    assert_int_equal(metrics_new(&metrics), 0);
    struct http_options http = {.threads = 2, .query_threads = 1, .commit_timeout_ms = WAIT_MS};
    assert_int_equal(socket_address_parse("127.0.0.1:0", &http.listen), 0);
    const struct http_route_table table = {.routes = routes, .n = 1, .journal = journal};
    assert_int_equal(http_server_new(os_real(), &http, &table, 1, metrics, NULL, &server), 0);
    assert_int_equal(http_server_start(server), 0);
    char text[32];
    (void)snprintf(text, sizeof text, "127.0.0.1:%u", http_server_port(server));
    assert_int_equal(socket_address_parse(text, &address), 0);
    atomic_store(&appended, 0);
}

static void unlink_one(void *context, const char *name) {
    (void)context;
    char path[OS_PATH_MAX];
    assert_int_equal(os_path_join(path, directory, "%s", name), 0);
    assert_int_equal(os_remove(os_real(), path), 0);
}

static void end(void) {
    server = http_server_free(server);
    journal = journal_close(journal);
    metrics = metrics_free(metrics);
    assert_int_equal(os_list(os_real(), directory, unlink_one, NULL), 0);
    assert_int_equal(os_rmdir(os_real(), directory), 0);
}

static void test_a_held_commit_holds_the_answer(void **state) {
    (void)state;
    begin(true);
    int fd = dial(&address);
    send_post(fd, "/write", "", "record", 6);
    until(&appended, 1);
    assert_true(no_answer_for(fd, 100));
    assert_int_equal(journal_commit(journal), 0);
    assert_string_equal(read_answer(fd).body, "1");
    assert_int_equal(journal_durable(journal), 1);
    socket_close(fd);
    end();
}

static void test_every_answer_is_durable(void **state) {
    (void)state;
    begin(false);
    enum { CONNECTIONS = 8, ROUNDS = 100 };
    int fds[CONNECTIONS];
    for (size_t i = 0; i < CONNECTIONS; i++)
        fds[i] = dial(&address);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < CONNECTIONS; i++)
            send_post(fds[i], "/write", "", "record", 6);
        for (size_t i = 0; i < CONNECTIONS; i++) {
            struct answer a = read_answer(fds[i]);
            assert_int_equal(a.status, 200);
            assert_true(strtoull(a.body, NULL, 10) <= journal_durable(journal));
        }
    }
    assert_int_equal(journal_durable(journal), CONNECTIONS * ROUNDS);
    for (size_t i = 0; i < CONNECTIONS; i++)
        socket_close(fds[i]);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_held_commit_holds_the_answer),
        cmocka_unit_test(test_every_answer_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
