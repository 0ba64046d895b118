/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of the benchmarks: one thread, n connections, closed loop (each connection sends its
 * next request when the last is answered). Bodies are put together from a pool of 1,000 vectors
 * that are written once, so that the client costs little beside the server. The same client drives
 * millrace and its peers.
 *
 *   bench-client ADDRESS FORM CONNECTIONS REQUESTS BATCH
 *
 * FORM: empty   POST /empty without a body
 *       one     POST /upsert, one point a request (qdapi's form; BATCH is ignored)
 *       points  PUT /collections/bench/points, BATCH points a request
 *       tag     POST /user_tags, a tag of `millrace load tags` (BATCH is ignored)
 *       task, taskbatch, tasklater
 *               POST /tasks, an empty task; /tasks/batch of BATCH of them; the same, for 2099
 * Prints one JSON object.
 */
#include "base/bytes.h"
#include "cli/load_tags_draw.h"
#include "os/os.h"
#include "os/socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { POOL = 1000, DIMENSION = 100, CONNECTIONS_MAX = 4096, ANSWER_MAX = 1 << 18 };

enum form {
    FORM_EMPTY,
    FORM_ONE,
    FORM_POINTS,
    FORM_TAG,
    FORM_TASK,
    FORM_TASK_BATCH,
    FORM_TASK_LATER,
};
static const char *const form_names[] = {"empty", "one",       "points",   "tag",
                                         "task",  "taskbatch", "tasklater"};

struct connection {
    int fd;
    struct buffer request;
    size_t sent;
    char answer[ANSWER_MAX];
    size_t received;
    uint64_t started_ns;
};

struct load {
    enum form form;
    uint64_t requests;
    uint64_t issued;
    uint64_t answered;
    uint64_t errors;
    uint64_t next_id;
    size_t batch;
    char *pool[POOL];
    struct tag_source tags;
    struct tag_pieces pieces;
    uint64_t *latencies_ns;
    struct os *os;
    int epoll;
};

static NORETURN void die(const char *what) {
    fprintf(stderr, "bench-client: %s\n", what);
    exit(1);
}

static void pool_fill(struct load *load) {
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < POOL; i++) {
        struct buffer text = BUFFER_INIT;
        for (size_t d = 0; d < DIMENSION; d++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            buffer_append_format(&text, "%s%.9f", d ? "," : "", (double)(state >> 11) * 0x1p-53);
        }
        buffer_append_u8(&text, 0);
        if (buffer_check(&text) < 0)
            die("out of memory");
        load->pool[i] = (char *)text.data;
    }
}

static void append_point(struct load *load, struct buffer *body) {
    uint64_t id = load->next_id++;
    buffer_append_format(body, "{\"id\":%llu,\"vector\":[", (unsigned long long)id);
    buffer_append_string(body, load->pool[id % POOL]);
    buffer_append_format(body,
                         "],\"payload\":{\"city\":\"City %llu\",\"location\":{\"lat\":%.4f,"
                         "\"lon\":%.4f}}}",
                         (unsigned long long)(id % 997), (double)(id % 180) - 90.0,
                         (double)(id % 360) - 180.0);
}

static void append_upsert(struct load *load, struct buffer *body) {
    uint64_t id = load->next_id++;
    buffer_append_format(body,
                         "{\"id\":%llu,\"collectionName\":\"bench\",\"city\":\"City %llu\","
                         "\"location\":\"here\",\"vector\":[",
                         (unsigned long long)id, (unsigned long long)(id % 997));
    buffer_append_string(body, load->pool[id % POOL]);
    buffer_append_string(body, "]}");
}

/* A line, as a batch takes it, and one alone too. */
static void append_task(enum form form, struct buffer *body) {
    buffer_append_string(body, "{\"type\":\"long_task\",\"args\":{\"total\":0}");
    if (form == FORM_TASK_LATER)
        buffer_append_string(body, ",\"run_at\":\"2099-01-01T00:00:00Z\"");
    buffer_append_string(body, "}\n");
}

static void build_request(struct load *load, struct buffer *request) {
    static const char *const lines[] = {[FORM_EMPTY] = "POST /empty",
                                        [FORM_ONE] = "POST /upsert",
                                        [FORM_POINTS] = "PUT /collections/bench/points",
                                        [FORM_TAG] = "POST /user_tags",
                                        [FORM_TASK] = "POST /tasks",
                                        [FORM_TASK_BATCH] = "POST /tasks/batch",
                                        [FORM_TASK_LATER] = "POST /tasks/batch"};
    struct buffer body = BUFFER_INIT;
    if (load->form == FORM_ONE) {
        append_upsert(load, &body);
    } else if (load->form == FORM_TAG) {
        struct tag tag;
        tag_draw(&load->tags, load->next_id++, &tag);
        tag_append(&load->pieces, &tag, &body);
    } else if (load->form == FORM_POINTS) {
        buffer_append_string(&body, "{\"points\":[");
        for (size_t i = 0; i < load->batch; i++) {
            if (i)
                buffer_append_u8(&body, ',');
            append_point(load, &body);
        }
        buffer_append_string(&body, "]}");
    } else if (load->form == FORM_TASK) {
        append_task(load->form, &body);
    } else if (load->form != FORM_EMPTY) {
        for (size_t i = 0; i < load->batch; i++)
            append_task(load->form, &body);
    }
    buffer_clear(request);
    buffer_append_format(request,
                         "%s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n",
                         lines[load->form], body.size);
    buffer_append_bytes(request, buffer_bytes(&body));
    if (buffer_check(&body) < 0 || buffer_check(request) < 0)
        die("out of memory");
    buffer_deinit(&body);
}

static void send_some(struct load *load, struct connection *c) {
    while (c->sent < c->request.size) {
        size_t n;
        int r = socket_write(c->fd, c->request.data + c->sent, c->request.size - c->sent, &n);
        if (r == OS_E_AGAIN)
            break;
        if (r)
            die("the server closed a connection while it was written to");
        c->sent += n;
    }
    struct epoll_event event = {.data.ptr = c,
                                .events = EPOLLIN | (c->sent < c->request.size ? EPOLLOUT : 0u)};
    if (epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void start_next(struct load *load, struct connection *c) {
    if (load->issued == load->requests)
        return;
    load->issued++;
    build_request(load, &c->request);
    c->sent = 0;
    c->received = 0;
    c->started_ns = os_monotonic_ns(load->os);
    send_some(load, c);
}

/* The whole answer is there: headers, and as many bytes as Content-Length says. */
static bool answer_complete(struct connection *c) {
    c->answer[c->received] = 0;
    const char *end = strstr(c->answer, "\r\n\r\n");
    if (!end)
        return false;
    const char *length = strcasestr(c->answer, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    return c->received >= (size_t)(end + 4 - c->answer) + body;
}

static void receive(struct load *load, struct connection *c) {
    size_t n;
    int r = socket_read(c->fd, c->answer + c->received, ANSWER_MAX - 1 - c->received, &n);
    if (r == OS_E_AGAIN)
        return;
    if (r)
        die("the server closed a connection before it answered");
    c->received += n;
    if (!answer_complete(c))
        return;
    if (c->answer[9] != '2') {
        if (!load->errors++)
            fprintf(stderr, "bench-client: first error: %s\n", c->answer);
    }
    load->latencies_ns[load->answered++] = os_monotonic_ns(load->os) - c->started_ns;
    start_next(load, c);
}

static void connect_all(struct load *load, struct connection *connections, size_t n,
                        const char *address_text) {
    struct socket_address address;
    if (socket_address_parse(address_text, &address))
        die("not an address");
    for (size_t i = 0; i < n; i++) {
        struct connection *c = &connections[i];
        if (socket_connect(&address, &c->fd))
            die("cannot connect");
        struct pollfd wait = {.fd = c->fd, .events = POLLOUT};
        if (socket_poll(&wait, 1, 5000) != 1)
            die("cannot connect");
        struct epoll_event event = {.data.ptr = c, .events = EPOLLIN};
        if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
            die("epoll_ctl");
    }
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x = load_u64(a), y = load_u64(b);
    return (x > y) - (x < y);
}

static void report(struct load *load, double seconds) {
    qsort(load->latencies_ns, load->answered, sizeof(uint64_t), compare_u64);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    uint64_t n = load->answered;
    printf("{\"requests\":%llu,\"errors\":%llu,\"seconds\":%.4f,\"requests_per_s\":%.1f,"
           "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"client_cpu_s\":%.3f}\n",
           (unsigned long long)n, (unsigned long long)load->errors, seconds, (double)n / seconds,
           (double)load->latencies_ns[n / 2] * 1e-6,
           (double)load->latencies_ns[n * 99 / 100] * 1e-6,
           (double)load->latencies_ns[n * 999 / 1000] * 1e-6, cpu);
}

static enum form form_of(const char *name) {
    for (size_t i = 0; i < ARRAY_LENGTH(form_names); i++)
        if (!strcmp(form_names[i], name))
            return (enum form)i;
    die("the form is empty, one, points, tag, task, taskbatch or tasklater");
}

int main(int argc, char **argv) {
    if (argc != 6)
        die("ADDRESS empty|one|points|tag|task|taskbatch|tasklater CONNECTIONS REQUESTS BATCH");
    struct load load = {.os = os_real(),
                        .form = form_of(argv[2]),
                        .tags = {.cookies = 1000000,
                                 .every = 1000000,
                                 .start_ms = 1647950400000, /* 2022-03-22T12:00:00 */
                                 .run = "bench"},
                        .requests = strtoull(argv[4], NULL, 10),
                        .batch = strtoull(argv[5], NULL, 10),
                        .epoll = epoll_create1(EPOLL_CLOEXEC)};
    size_t n = strtoull(argv[3], NULL, 10);
    if (n < 1 || n > CONNECTIONS_MAX || load.requests < n || load.epoll < 0)
        die("CONNECTIONS is 1 to 4096, REQUESTS at least as many");
    load.latencies_ns = calloc(load.requests, sizeof *load.latencies_ns);
    struct connection *connections = calloc(n, sizeof *connections);
    if (!load.latencies_ns || !connections)
        die("out of memory");
    pool_fill(&load);
    tag_pieces_init(&load.pieces, &load.tags, 0);
    connect_all(&load, connections, n, argv[1]);
    uint64_t started = os_monotonic_ns(load.os);
    for (size_t i = 0; i < n; i++)
        start_next(&load, &connections[i]);
    while (load.answered < load.requests) {
        struct epoll_event events[256];
        int ready = epoll_wait(load.epoll, events, 256, 30000);
        if (ready == 0)
            die("no answer for 30 s");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_some(&load, c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(&load, c);
        }
    }
    report(&load, (double)(os_monotonic_ns(load.os) - started) * 1e-9);
    for (size_t i = 0; i < n; i++) {
        socket_close(connections[i].fd);
        buffer_deinit(&connections[i].request);
    }
    free(connections);
    free(load.latencies_ns);
    for (size_t i = 0; i < POOL; i++)
        free(load.pool[i]);
    close(load.epoll);
    return load.errors ? 1 : 0;
}
