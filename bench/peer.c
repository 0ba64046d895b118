/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peers of the benchmarks: servers on the same HTTP library that do less. Each answers every
 * request with 204; two threads, epoll. The threads are not the library's own, as those wait
 * without an end after a wait that gave exactly as many events as it takes at a time: 128, half of
 * 256 connections.
 *
 *   bench-peer PORT static    answers at once, keeps nothing
 *   bench-peer PORT discard   reads the whole body and throws it away
 *   bench-peer PORT parse     reads the whole body and parses it with the same JSON parser, whole
 *                             (simdjson alone, which in millrace no longer sees a point's vector)
 *
 * Ends when its standard input does.
 */
#include "base/json.h"
#include "os/os.h"
#include "os/socket.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 2, BODY_MAX = 64 << 20, CONNECTION_MEMORY = 128 << 10, WAIT_MS = 100 };

enum mode { MODE_STATIC, MODE_DISCARD, MODE_PARSE };

struct request {
    struct buffer body;
};

static struct MHD_Response *empty_response;
static _Thread_local struct json_parser *parser;
static _Thread_local double sink; /* keeps the parsing from being optimised away */

static void walk(struct json_value v) {
    struct json_value child;
    struct json_iterator it = json_iterate(v);
    double number;
    if (json_get_double(v, &number))
        sink += number;
    while (json_next(&it, NULL, &child))
        walk(child);
}

static unsigned parse(struct request *request) {
    struct json_value root;
    if (!parser && json_parser_new(BODY_MAX, &parser))
        return 500;
    size_t size = request->body.size;
    if (!buffer_reserve(&request->body, JSON_PADDING))
        return 500;
    if (json_parse(parser, bytes_of(request->body.data, size), &root))
        return 400;
    walk(root);
    return 204;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **state) {
    enum mode mode = *(const enum mode *)context;
    (void)url, (void)method, (void)version;
    struct request *request = *state;
    if (!request) {
        *state = request = calloc(1, sizeof *request);
        return request ? MHD_YES : MHD_NO;
    }
    if (*size) {
        if (mode == MODE_PARSE)
            buffer_append(&request->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    unsigned status = mode == MODE_PARSE ? parse(request) : 204;
    return MHD_queue_response(connection, status, empty_response);
}

static void completed(void *context, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode code) {
    (void)context, (void)connection, (void)code;
    struct request *request = *state;
    if (request)
        buffer_deinit(&request->body);
    free(request);
}

static void serve(void *daemon) {
    while (MHD_run_wait(daemon, WAIT_MS) == MHD_YES)
        ;
}

static bool start(int listener, enum mode *mode) {
    struct os_thread *thread;
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, handle, mode, MHD_OPTION_LISTEN_SOCKET, listener,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_END);
    return daemon && os_thread_start(os_real(), "peer", serve, daemon, &thread) == 0;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    static enum mode mode;
    mode = !strcmp(argv[2], "parse")     ? MODE_PARSE
           : !strcmp(argv[2], "discard") ? MODE_DISCARD
                                         : MODE_STATIC;
    struct socket_address address;
    char text[32];
    int listener;
    uint16_t port;
    snprintf(text, sizeof text, "127.0.0.1:%s", argv[1]);
    empty_response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    bool ok =
        socket_address_parse(text, &address) == 0 && socket_listen(&address, &listener, &port) == 0;
    for (unsigned i = 0; ok && i < THREADS; i++)
        ok = start(listener, &mode);
    if (!ok) {
        fprintf(stderr, "bench-peer: cannot listen on %s\n", argv[1]);
        return 1;
    }
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return 0;
}
