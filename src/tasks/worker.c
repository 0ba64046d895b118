/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker process. Its main thread runs the tasks in the order in which they came. A second one,
 * the listener, reads what the runner says, says that the worker is alive, and sends what the main
 * thread left unsent: frames gather while there is more to do, so that short tasks share a write.
 *
 *   listener ──queue──▶ main ──out──▶ socket
 *       └──────stop──────▲     ▲ listener: after 5 ms, what gathered; after 50 ms, progress
 *
 * One lock guards it all. When the socket ends, the server is gone or wants us gone: whatever the
 * tasks started is killed, and the process ends where it stands.
 */
#include "tasks/worker.h"

#include "os/child.h"
#include "os/process.h"
#include "os/socket.h"
#include "os/sync.h"
#include "tasks/handler.h"
#include "tasks/wire.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    NS_PER_MS = 1000000,
    GATHER_NS = 1 * NS_PER_MS,    /* while there is more to do, frames may wait this long */
    GATHER_BYTES = 64 << 10,      /* and get this many */
    UNSENT_MS = 5,                /* after which the listener sends what the main thread has not */
    PROGRESS_NS = 50 * NS_PER_MS, /* between two progress frames of a task */
    READ_BYTES = 64 << 10,
};

struct assignment {
    struct assignment *next;
    uint64_t key;
    uint32_t attempt;
    struct wire_run run; /* views into body, which has JSON_PADDING behind it */
    uint8_t body[];
};

struct worker;
struct task_run {
    struct worker *worker;
    struct assignment *assignment;
    struct buffer text;
    struct buffer saved; /* the newest, as current and total */
    uint64_t current;
    uint64_t total;
    bool unsent; /* progress */
    uint64_t sent_ns;
};

struct worker {
    struct os *os;
    int socket;
    struct json_parser *parser;
    struct buffer greeting; /* what settings are views of */
    struct task_settings settings;
    uint32_t alive_ms;

    struct mutex lock;
    struct condition queued;
    struct condition stop;
    _Atomic bool stopped; /* the task under way is to stop */
    bool greeted;
    struct assignment *first;
    struct assignment *last;
    struct task_run *running; /* NULL: the main thread waits */
    struct buffer out;
    uint64_t flushed_ns;
};

/* ---- Sending, under the lock ---- */

NORETURN static void leave(int status) {
    int r = child_kill_strays(NULL, 0, NULL);
    process_exit(r ? 1 : status);
}

static void flush(struct worker *w, uint64_t now_ns) {
    if (w->out.failed)
        leave(1);
    for (size_t sent = 0; sent < w->out.size;) {
        size_t n = 0;
        int r = socket_write(w->socket, w->out.data + sent, w->out.size - sent, &n);
        if (r)
            leave(0);
        sent += n;
    }
    buffer_clear(&w->out);
    w->flushed_ns = now_ns;
}

static void append_plain(struct worker *w, enum wire_message message, uint64_t key,
                         uint32_t attempt) {
    wire_end(&w->out, wire_begin(&w->out, message, key, attempt));
}

static struct wire_progress progress_of(const struct task_run *r) {
    return (struct wire_progress){r->current, r->total, buffer_bytes(&r->saved)};
}

static void send_progress(struct task_run *r, uint64_t now_ns) {
    struct worker *w = r->worker;
    struct wire_progress progress = progress_of(r);
    wire_append_progress(&w->out, r->assignment->key, r->assignment->attempt, &progress);
    flush(w, now_ns);
    r->unsent = false;
    r->sent_ns = now_ns;
}

/* ---- The listener ---- */

static char *copy_setting(struct buffer *out, struct bytes text) {
    size_t at = out->size;
    buffer_append_bytes(out, text);
    buffer_append_u8(out, 0);
    return out->failed ? NULL : (char *)out->data + at;
}

/* The buffer is reserved before, so that it does not move. */
static bool greet(struct worker *w, struct bytes body) {
    struct wire_hello hello;
    if (w->greeted || !wire_read_hello(body, &hello) || !buffer_reserve(&w->greeting, body.size))
        return false;
    struct task_imports *imports = &w->settings.imports;
    w->settings.commands = copy_setting(&w->greeting, hello.commands);
    imports->directory = copy_setting(&w->greeting, hello.import_directory);
    imports->hosts = copy_setting(&w->greeting, hello.import_hosts);
    imports->url = copy_setting(&w->greeting, hello.url);
    imports->key = copy_setting(&w->greeting, hello.key);
    imports->max_bytes = hello.import_max_bytes;
    w->alive_ms = hello.alive_ms > 0 ? hello.alive_ms : 1;
    w->greeted = !w->greeting.failed;
    return w->greeted;
}

static bool enqueue(struct worker *w, const struct wire_frame *frame) {
    struct assignment *a = calloc(1, sizeof *a + frame->body.size + JSON_PADDING);
    if (!a)
        return false;
    memcpy(a->body, frame->body.data, frame->body.size);
    a->key = frame->key;
    a->attempt = frame->attempt;
    if (!w->greeted || !wire_read_run(bytes_of(a->body, frame->body.size), &a->run)) {
        free(a);
        return false;
    }
    if (w->last)
        w->last->next = a;
    else
        w->first = a;
    w->last = a;
    if (!w->running)
        condition_signal(&w->queued);
    return true;
}

/* Gives back the assignments with that key, or all: key 0. */
static void give_back(struct worker *w, uint64_t key) {
    struct assignment **at = &w->first;
    w->last = NULL;
    while (*at) {
        struct assignment *a = *at;
        if (key != 0 && a->key != key) {
            w->last = a;
            at = &a->next;
            continue;
        }
        append_plain(w, WIRE_RETURNED, a->key, a->attempt);
        *at = a->next;
        free(a);
    }
    if (w->out.size)
        flush(w, os_monotonic_ns(w->os));
}

static void stop(struct worker *w, const struct wire_frame *frame) {
    if (w->running && w->running->assignment->key == frame->key) {
        atomic_store(&w->stopped, true);
        condition_broadcast(&w->stop);
    } else {
        give_back(w, frame->key);
    }
}

static bool obey(struct worker *w, const struct wire_frame *frame) {
    switch (frame->message) {
    case WIRE_HELLO:
        return greet(w, frame->body);
    case WIRE_RUN:
        return enqueue(w, frame);
    case WIRE_STOP:
        stop(w, frame);
        return true;
    case WIRE_RECALL:
        give_back(w, 0);
        return true;
    default:
        return false;
    }
}

/* False: the other end is gone, or says what we do not understand. */
static bool receive(struct worker *w, struct buffer *in) {
    struct wire_frame frame;
    size_t n = 0, at = 0;
    uint8_t *to = buffer_reserve(in, READ_BYTES);
    if (!to || socket_read(w->socket, to, READ_BYTES, &n))
        return false;
    in->size += n;
    int r = 0;
    bool understood = true;
    mutex_lock(&w->lock);
    while (understood && (r = wire_next(buffer_bytes(in), &at, &frame)) == 0)
        understood = obey(w, &frame);
    mutex_unlock(&w->lock);
    memmove(in->data, in->data + at, in->size - at);
    in->size -= at;
    return understood && r > 0;
}

/* Says what is due; returns after how long to look again. */
static uint64_t speak(struct worker *w, uint64_t *alive_ns) {
    mutex_lock(&w->lock);
    uint64_t now_ns = os_monotonic_ns(w->os);
    struct task_run *r = w->running;
    if (now_ns >= *alive_ns) {
        append_plain(w, WIRE_ALIVE, 0, 0);
        *alive_ns = now_ns + (uint64_t)w->alive_ms * NS_PER_MS;
    }
    if (r && r->unsent && now_ns - r->sent_ns >= PROGRESS_NS)
        send_progress(r, now_ns);
    else if (w->out.size)
        flush(w, now_ns);
    uint64_t wait_ns = *alive_ns - now_ns;
    uint64_t busy_ns = w->first ? (uint64_t)UNSENT_MS * NS_PER_MS : PROGRESS_NS;
    bool busy = w->first || w->running;
    mutex_unlock(&w->lock);
    return busy && busy_ns < wait_ns ? busy_ns : wait_ns;
}

static void listen_to_runner(void *argument) {
    struct worker *w = argument;
    struct buffer in = BUFFER_INIT;
    struct pollfd pollfd = {.fd = w->socket, .events = POLLIN};
    uint64_t alive_ns = 0;
    for (;;) {
        uint64_t wait_ns = speak(w, &alive_ns);
        int ready = socket_poll_ns(&pollfd, 1, (int64_t)wait_ns);
        if (ready < 0 || (ready > 0 && !receive(w, &in)))
            break;
    }
    leave(0);
}

/* ---- The main thread ---- */

/* Waits for a task. In one go with its BEGAN, so that a STOP finds it in the queue or running. */
static void begin(struct task_run *r) {
    struct worker *w = r->worker;
    mutex_lock(&w->lock);
    while (!w->first)
        condition_wait(&w->queued, &w->lock);
    r->assignment = w->first;
    w->first = w->first->next;
    if (!w->first)
        w->last = NULL;
    atomic_store(&w->stopped, false);
    w->running = r;
    append_plain(w, WIRE_BEGAN, r->assignment->key, r->assignment->attempt);
    mutex_unlock(&w->lock);
}

/* An error may be cut, at the start of a character; what is left of a result would be no JSON. */
static struct bytes fitting_text(struct task_run *r, uint8_t *outcome) {
    static const char too_long[] = "the result is longer than 64 KiB";
    struct bytes text = buffer_bytes(&r->text);
    if (r->text.failed) {
        *outcome = TASK_OUTCOME_FAILED;
        return BYTES_LITERAL("memory is out");
    }
    if (text.size <= TASK_RESULT_MAX)
        return text;
    if (*outcome == TASK_OUTCOME_SUCCEEDED) {
        *outcome = TASK_OUTCOME_REFUSED;
        return bytes_of(too_long, sizeof too_long - 1);
    }
    for (text.size = TASK_RESULT_MAX; text.size > 0 && (text.data[text.size] & 0xc0) == 0x80;)
        text.size--;
    return text;
}

static void end(struct task_run *r, enum task_outcome outcome) {
    struct worker *w = r->worker;
    struct wire_ended ended = {.outcome = (uint8_t)outcome, .progress = progress_of(r)};
    ended.text = fitting_text(r, &ended.outcome);
    mutex_lock(&w->lock);
    w->running = NULL;
    if (atomic_load(&w->stopped))
        ended.outcome = WIRE_STOPPED;
    wire_append_ended(&w->out, r->assignment->key, r->assignment->attempt, &ended);
    uint64_t now_ns = os_monotonic_ns(w->os);
    if (!w->first || w->out.size > GATHER_BYTES || now_ns - w->flushed_ns > GATHER_NS)
        flush(w, now_ns);
    mutex_unlock(&w->lock);
}

static enum task_outcome run_handler(struct task_run *r) {
    struct bytes type = r->assignment->run.type;
    const struct task_handler *handler = task_handler_find(type);
    if (handler)
        return handler->run(r);
    buffer_append_string(&r->text, "there is no handler of this type: ");
    buffer_append_bytes(&r->text, type);
    return TASK_OUTCOME_REFUSED;
}

static void work(struct worker *w, struct buffer *text, struct buffer *saved) {
    struct task_run run = {.worker = w, .text = *text, .saved = *saved};
    begin(&run);
    enum task_outcome outcome = run_handler(&run);
    assert(outcome >= TASK_OUTCOME_SUCCEEDED && outcome <= TASK_OUTCOME_REFUSED);
    end(&run, outcome);
    free(run.assignment);
    *text = run.text;
    *saved = run.saved;
    buffer_clear(text);
    buffer_clear(saved);
}

int task_worker_main(struct os *os, int socket) {
    struct worker w = {.os = os, .socket = socket, .alive_ms = 1000};
    struct buffer text = BUFFER_INIT, saved = BUFFER_INIT;
    struct os_thread *listener;
    process_ignore_broken_pipes();
    mutex_init(&w.lock, LOCK_RANK_TASK_WORKER);
    condition_init(&w.queued);
    condition_init(&w.stop);
    if (child_adopt_strays() || json_parser_new(TASK_ARGS_MAX, &w.parser) ||
        os_thread_start(os, "task-listener", listen_to_runner, &w, &listener))
        return 1;
    for (;;)
        work(&w, &text, &saved);
}

/* ---- For handlers ---- */

uint64_t task_run_key(const struct task_run *r) {
    return r->assignment->key;
}

struct bytes task_run_args(const struct task_run *r) {
    return r->assignment->run.args;
}

struct json_value task_run_arguments(struct task_run *r) {
    struct json_value root;
    if (json_parse(r->worker->parser, task_run_args(r), &root) == 0)
        return root;
    /* "null" and its padding: what any later parse leaves alone. */
    static const char null[JSON_PADDING + sizeof "null"] = "null";
    int failed = json_parse(r->worker->parser, bytes_of(null, strlen(null)), &root);
    assert(!failed && "the parser holds four bytes");
    (void)failed;
    return root;
}

struct bytes task_run_saved(const struct task_run *r) {
    return r->assignment->run.saved;
}

const struct task_settings *task_run_settings(const struct task_run *r) {
    return &r->worker->settings;
}

void task_run_progress(struct task_run *r, uint64_t current, uint64_t total, struct bytes saved) {
    assert(saved.size <= TASK_SAVED_MAX);
    struct worker *w = r->worker;
    uint64_t now_ns = os_monotonic_ns(w->os);
    mutex_lock(&w->lock);
    r->current = current;
    r->total = total;
    if (saved.size) {
        buffer_clear(&r->saved);
        buffer_append_bytes(&r->saved, saved);
    }
    r->unsent = true;
    if (now_ns - r->sent_ns >= PROGRESS_NS)
        send_progress(r, now_ns);
    mutex_unlock(&w->lock);
}

bool task_run_stopped(const struct task_run *r) {
    return atomic_load_explicit(&r->worker->stopped, memory_order_relaxed);
}

void task_run_sleep_ms(struct task_run *r, uint64_t ms) {
    struct worker *w = r->worker;
    uint64_t deadline_ns = os_monotonic_ns(w->os) + ms * NS_PER_MS;
    mutex_lock(&w->lock);
    while (!atomic_load(&w->stopped) && condition_wait_until(&w->stop, &w->lock, deadline_ns))
        continue;
    mutex_unlock(&w->lock);
}

struct buffer *task_run_text(struct task_run *r) {
    return &r->text;
}
