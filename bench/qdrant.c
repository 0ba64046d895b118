/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Points through the client of Qdrant into a sink that only answers, beside a bare sender of the
 * same requests, made before: bench-qdrant POINTS A_BATCH THREADS. Each in turn, some rounds of
 * them; prints the best of each as one line of JSON.
 *
 * The sink is HTTP/2 by nghttp2, a thread a connection, with windows of a megabyte, as Qdrant has.
 * The CPU a point is that of the calling threads alone.
 */
#include "points/qdrant/client.h"
#include "points/qdrant/encode.h"
#include "points/qdrant/rpc.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    DIMENSION = 100,
    THREADS_MAX = 16,
    ROUNDS = 7,
    WINDOW = 1 << 20,
    FLOAT_BYTES = DIMENSION * 4
};
static const char PAYLOAD[] =
    "{\"city\":\"City 17\",\"location\":{\"lat\":52.0,\"lon\":21.0},\"views\":12345,\"new\":true}";
/* PointsOperationResponse {result {operation_id: 5, status: Completed}} */
static const uint8_t DONE[] = {0, 0, 0, 0, 6, 0x0a, 4, 8, 5, 16, 2};

static void expect(int r) {
    if (r) {
        fprintf(stderr, "bench-qdrant: %d\n", r);
        exit(1);
    }
}

/* ---- The sink ---- */
static ssize_t on_answer(nghttp2_session *session, int32_t stream, uint8_t *out, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *context) {
    (void)source;
    (void)context;
    nghttp2_nv status = {(uint8_t *)"grpc-status", (uint8_t *)"0", 11, 1, 0};
    if (size < sizeof DONE)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    memcpy(out, DONE, sizeof DONE);
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    expect(nghttp2_submit_trailer(session, stream, &status, 1));
    return sizeof DONE;
}

static int on_request(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
    (void)context;
    nghttp2_nv headers[] = {{(uint8_t *)":status", (uint8_t *)"200", 7, 3, 0},
                            {(uint8_t *)"content-type", (uint8_t *)"application/grpc", 12, 16, 0}};
    nghttp2_data_provider body = {.read_callback = on_answer};
    if (frame->hd.type == NGHTTP2_DATA && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        return nghttp2_submit_response(session, frame->hd.stream_id, headers, 2, &body);
    return 0;
}

static void send_all(nghttp2_session *session, int fd) {
    const uint8_t *data;
    ssize_t size;
    while ((size = nghttp2_session_mem_send(session, &data)) > 0) {
        size_t n;
        expect(socket_write(fd, data, (size_t)size, &n) || n != (size_t)size);
    }
}

static void serve(void *argument) {
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    int fd = (int)(intptr_t)argument;
    static _Thread_local uint8_t data[64 << 10];
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *session;
    expect(nghttp2_session_callbacks_new(&callbacks));
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_request);
    expect(nghttp2_session_server_new(&session, callbacks, NULL));
    expect(nghttp2_submit_settings(session, 0, settings, 1));
    expect(nghttp2_session_set_local_window_size(session, 0, 0, WINDOW));
    for (;;) {
        size_t n;
        send_all(session, fd);
        int r = socket_read(fd, data, sizeof data, &n);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (r == OS_E_AGAIN)
            expect(socket_poll(&wait, 1, -1) < 0);
        else if (r || nghttp2_session_mem_recv(session, data, n) < 0)
            break;
    }
    nghttp2_session_del(session);
    nghttp2_session_callbacks_del(callbacks);
    socket_close(fd);
}

static void accept_all(void *argument) {
    int listener = (int)(intptr_t)argument;
    for (;;) {
        struct pollfd wait = {.fd = listener, .events = POLLIN};
        struct socket_address peer;
        struct os_thread *thread;
        int fd;
        expect(socket_poll(&wait, 1, -1) < 0);
        if (socket_accept(listener, &fd, &peer) == 0)
            expect(os_thread_start(os_real(), "sink", serve, (void *)(intptr_t)fd, &thread));
    }
}

/* ---- The senders ---- */
struct sender {
    struct qdrant_client *client; /* NULL: bare */
    const struct point_config *config;
    const struct qdrant_point *points;
    size_t batch;
    size_t calls;
    uint16_t port;
    uint64_t cpu_ns;
    struct os_thread *thread;
};

static uint64_t thread_cpu_ns(void) {
    struct timespec t;
    expect(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t));
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void send_points(struct sender *s) {
    const struct qdrant_update update = {.collection = BYTES_LITERAL("c"), .ordering = QDRANT_WEAK};
    for (size_t i = 0; i < s->calls; i++) {
        struct qdrant_answer answer;
        expect(qdrant_upsert(s->client, &update, s->config, s->points, s->batch, &answer));
        expect((int)answer.outcome);
    }
}

static void send_prepared(struct sender *s) {
    CLEANUP(payload_reader_deinit) struct payload_reader reader = PAYLOAD_READER_INIT;
    CLEANUP(buffer_deinit) struct buffer body = BUFFER_INIT;
    const struct transport_target target = {.host = "127.0.0.1", .port = s->port};
    uint64_t deadline_ns = os_monotonic_ns(os_real()) + (uint64_t)600 * 1000000000;
    struct transport *transport;
    struct rpc_answer answer;
    struct rpc *rpc;
    char why[100];
    size_t bad;
    expect(encode_upsert(&reader, BYTES_LITERAL("c"), s->config, s->points, s->batch, QDRANT_WEAK,
                         &body, &bad));
    expect(transport_open(os_real(), &target, deadline_ns, why, sizeof why, &transport));
    expect(rpc_new(os_real(), transport, &rpc));
    const struct rpc_request request = {.scheme = "http",
                                        .authority = "sink",
                                        .method = "/qdrant.Points/Upsert",
                                        .body = buffer_bytes(&body),
                                        .deadline_ns = deadline_ns};
    for (size_t i = 0; i < s->calls; i++)
        expect(rpc_call(rpc, &request, &answer) || answer.status);
    rpc_free(rpc);
}

static void run_sender(void *argument) {
    struct sender *s = argument;
    uint64_t start_ns = thread_cpu_ns();
    if (s->client)
        send_points(s);
    else
        send_prepared(s);
    s->cpu_ns = thread_cpu_ns() - start_ns;
}

struct figures {
    double rate;   /* points a second */
    double cpu_us; /* a point */
};

/* Keeps the better of what it was and what this run gives. */
static void run(const struct sender *as, unsigned threads, struct figures *best) {
    struct sender senders[THREADS_MAX];
    uint64_t start_ns = os_monotonic_ns(os_real());
    double cpu_ns = 0;
    for (unsigned i = 0; i < threads; i++) {
        senders[i] = *as;
        expect(os_thread_start(os_real(), "sender", run_sender, &senders[i], &senders[i].thread));
    }
    for (unsigned i = 0; i < threads; i++) {
        os_thread_join(os_real(), senders[i].thread);
        cpu_ns += (double)senders[i].cpu_ns;
    }
    double n = (double)(as->calls * as->batch * threads);
    double rate = n * 1e9 / (double)(os_monotonic_ns(os_real()) - start_ns);
    double cpu_us = cpu_ns / 1000 / n;
    best->rate = rate > best->rate ? rate : best->rate;
    best->cpu_us = best->cpu_us == 0 || cpu_us < best->cpu_us ? cpu_us : best->cpu_us;
}

int main(int argc, char **argv) {
    static const struct point_config config = {.n_vectors = 1,
                                               .vectors = {{.dimension = DIMENSION}}};
    size_t total = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    size_t batch = argc > 2 ? strtoul(argv[2], NULL, 10) : 100;
    unsigned threads = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 2;
    if (batch == 0 || threads == 0 || threads > THREADS_MAX)
        return 2;
    struct qdrant_point *points = calloc(batch, sizeof *points);
    float *floats = calloc(batch, FLOAT_BYTES);
    for (size_t i = 0; i < batch; i++)
        points[i] = (struct qdrant_point){.id = {.low = i},
                                          .vector_mask = 1,
                                          .vectors = bytes_of(floats + i * DIMENSION, FLOAT_BYTES),
                                          .payload = bytes_of_string(PAYLOAD)};
    struct socket_address address;
    struct os_thread *thread;
    struct sender as = {.config = &config, .points = points, .batch = batch};
    int listener;
    expect(socket_address_parse("127.0.0.1:0", &address));
    expect(socket_listen(&address, &listener, &as.port));
    expect(os_thread_start(os_real(), "accept", accept_all, (void *)(intptr_t)listener, &thread));
    const struct qdrant_client_options options = {.host = "127.0.0.1", .port = as.port};
    struct qdrant_client *client;
    expect(qdrant_client_new(os_real(), &options, &client));
    as.calls = total / batch / threads;
    struct figures bare = {0};
    struct figures with_client = {0};
    for (unsigned round = 0; round < ROUNDS; round++) {
        as.client = NULL;
        run(&as, threads, &bare);
        as.client = client;
        run(&as, threads, &with_client);
    }
    printf("{\"batch\": %zu, \"threads\": %u, \"bare_points_per_s\": %.0f, \"points_per_s\": %.0f, "
           "\"ratio\": %.3f, \"bare_cpu_us_a_point\": %.3f, \"cpu_us_a_point\": %.3f}\n",
           batch, threads, bare.rate, with_client.rate, with_client.rate / bare.rate, bare.cpu_us,
           with_client.cpu_us);
    return 0;
}
