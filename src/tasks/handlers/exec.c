/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec runs a configured command (commands.h), never one from a request:
 *
 *   standard input    args.args as JSON, and a newline
 *   standard output   lines. {"current":…,"total":…} is progress; of the others, the last that is
 *                     JSON is the result; those longer than 32 KiB are skipped
 *   standard error    its last 4 KiB are kept
 *
 * Status 0 is success. However it ends, nothing that it started is left.
 */
#include "base/json.h"
#include "os/socket.h"
#include "tasks/handler.h"
#include "tasks/handlers/arguments.h"
#include "tasks/handlers/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LINE_MAX_BYTES = 32 << 10,
    ERROR_KEPT_BYTES = 4 << 10,
    READ_BYTES = 16 << 10,
    AFTERWARDS_BYTES_MAX = 1 << 20, /* read after its end: whoever holds the pipe may go on */
    LOOK_MS = 50,
    NS_PER_S = 1000000000,
};

static const struct argument_row rows[] = {
    {.name = "command", .type = JSON_STRING, .required = true},
    {.name = "args", .type = JSON_OBJECT},
};

static bool check(struct json_value args, const struct task_settings *settings, char *sentence,
                  size_t size) {
    if (!arguments_check(rows, ARRAY_LENGTH(rows), args, sentence, size))
        return false;
    if (!settings || (settings->commands && *settings->commands))
        return true;
    (void)snprintf(sentence, size,
                   "no commands are configured: the server was started without --task-commands");
    return false;
}

struct execution {
    struct task_run *run;
    struct json_parser *parser;
    struct child child;
    struct child_end end;
    bool ended;
    int in, out, error; /* -1: closed */
    struct buffer input;
    size_t written;
    struct buffer line;
    bool skipping; /* the rest of a line that is too long */
    struct buffer result;
    struct buffer last_error;
};

/* ---- What it says ---- */

/* Only these members, so that a result may have them among others. */
static bool is_progress(struct json_value v, uint64_t *ret_current, uint64_t *ret_total) {
    struct json_value current, total;
    bool has_total = json_find(v, "total", &total);
    *ret_total = 0;
    return json_find(v, "current", &current) && json_get_u64(current, ret_current) &&
           (!has_total || json_get_u64(total, ret_total)) && json_size(v) == 1 + (size_t)has_total;
}

static void take_line(struct execution *x) {
    struct json_value value;
    uint64_t current, total;
    struct bytes text = buffer_bytes(&x->line);
    if (text.size == 0 || !buffer_reserve(&x->line, JSON_PADDING))
        return;
    text.data = x->line.data;
    if (json_parse(x->parser, text, &value))
        return;
    if (is_progress(value, &current, &total)) {
        task_run_progress(x->run, current, total, (struct bytes){0});
        return;
    }
    buffer_clear(&x->result);
    buffer_append_bytes(&x->result, text);
}

static void end_line(struct execution *x) {
    if (!x->skipping)
        take_line(x);
    x->skipping = false;
    buffer_clear(&x->line);
}

static void take_output(struct execution *x, struct bytes data) {
    for (size_t at = 0; at < data.size;) {
        const uint8_t *newline = memchr(data.data + at, '\n', data.size - at);
        size_t end = newline ? (size_t)(newline - data.data) : data.size;
        if (x->line.size + (end - at) > LINE_MAX_BYTES)
            x->skipping = true;
        if (!x->skipping)
            buffer_append(&x->line, data.data + at, end - at);
        if (newline)
            end_line(x);
        at = end + (newline ? 1 : 0);
    }
}

static void take_error(struct execution *x, struct bytes data) {
    struct buffer *b = &x->last_error;
    buffer_append_bytes(b, data);
    if (b->size > ERROR_KEPT_BYTES) {
        memmove(b->data, b->data + b->size - ERROR_KEPT_BYTES, ERROR_KEPT_BYTES);
        b->size = ERROR_KEPT_BYTES;
    }
}

static void close_end(int *fd) {
    if (*fd >= 0)
        child_close(*fd);
    *fd = -1;
}

/* Reads once; how much, 0 when there is nothing now. */
static size_t drain(struct execution *x, int *fd) {
    uint8_t data[READ_BYTES];
    size_t n = 0;
    if (*fd < 0)
        return 0;
    int r = child_read(*fd, data, sizeof data, &n);
    if (r == OS_E_AGAIN)
        return 0;
    if (r) {
        close_end(fd);
        return 0;
    }
    if (fd == &x->out)
        take_output(x, bytes_of(data, n));
    else
        take_error(x, bytes_of(data, n));
    return n;
}

static void feed(struct execution *x) {
    size_t n = 0;
    int r = child_write(x->in, x->input.data + x->written, x->input.size - x->written, &n);
    if (r == 0)
        x->written += n;
    if (x->written == x->input.size || (r && r != OS_E_AGAIN))
        close_end(&x->in); /* or it does not want to know */
}

/* ---- Its life ---- */

static void serve(struct execution *x) {
    struct pollfd fds[] = {
        {.fd = x->in, .events = POLLOUT},
        {.fd = x->out, .events = POLLIN},
        {.fd = x->error, .events = POLLIN},
        {.fd = x->child.fd, .events = POLLIN},
    };
    if (socket_poll(fds, ARRAY_LENGTH(fds), LOOK_MS) <= 0)
        return;
    if (fds[0].revents)
        feed(x);
    if (fds[1].revents)
        (void)drain(x, &x->out);
    if (fds[2].revents)
        (void)drain(x, &x->error);
    if (fds[3].revents)
        x->ended = child_ended(&x->child, &x->end) == 0;
}

static void drain_rest(struct execution *x) {
    size_t read = 0, n;
    do {
        n = drain(x, &x->out);
        n += drain(x, &x->error);
        read += n;
    } while (n > 0 && read < AFTERWARDS_BYTES_MAX);
    end_line(x);
}

/* Until it has ended, is to stop, or its time is over; true for the first. */
static bool attend(struct execution *x, uint64_t time_s) {
    uint64_t start_ns = os_monotonic_ns(os_real());
    while (!x->ended) {
        uint64_t passed_s = (os_monotonic_ns(os_real()) - start_ns) / NS_PER_S;
        if (task_run_stopped(x->run) || (time_s && passed_s >= time_s)) {
            child_destroy(&x->child);
            return false;
        }
        serve(x);
    }
    drain_rest(x);
    return true;
}

static int open_pipes(struct execution *x, int theirs[3]) {
    int r = child_pipe_to(&x->in, &theirs[0]);
    if (r == 0)
        r = child_pipe_from(&x->out, &theirs[1]);
    if (r == 0)
        r = child_pipe_from(&x->error, &theirs[2]);
    return error_trace(r);
}

static int start(struct execution *x, const struct command *c) {
    const char *arguments[COMMAND_ARGUMENTS_MAX + 1], *variables[COMMAND_VARIABLES_MAX + 1];
    int theirs[3] = {-1, -1, -1};
    memcpy(arguments, c->arguments, sizeof arguments);
    memcpy(variables, c->variables, sizeof variables);
    int r = open_pipes(x, theirs);
    const struct child_options options = {.program = c->arguments[0],
                                          .arguments = arguments,
                                          .variables = variables,
                                          .files = {theirs[0], theirs[1], theirs[2], -1},
                                          .limits = &c->limits};
    if (r == 0)
        r = child_start(&options, &x->child);
    for (size_t i = 0; i < ARRAY_LENGTH(theirs); i++)
        close_end(&theirs[i]);
    return error_trace(r);
}

/* ---- What became of it ---- */

static enum task_outcome succeed(struct execution *x) {
    struct buffer *out = task_run_text(x->run);
    buffer_append_string(out, "{\"status\":0,\"result\":");
    if (x->result.size)
        buffer_append_bytes(out, buffer_bytes(&x->result));
    else
        buffer_append_string(out, "null");
    buffer_append_string(out, ",\"stderr\":");
    json_append_string(out, buffer_bytes(&x->last_error));
    buffer_append_u8(out, '}');
    return TASK_OUTCOME_SUCCEEDED;
}

static enum task_outcome fail(struct execution *x, const struct command *c, bool ended) {
    struct buffer *out = task_run_text(x->run);
    char name[16];
    buffer_append_string(out, "the command ");
    if (!ended)
        buffer_append_format(out, "ran longer than its %" PRIu64 " s", c->time_s);
    else if (x->end.signal)
        buffer_append_format(out, "was ended by %s", child_signal_name(x->end.signal, name));
    else
        buffer_append_format(out, "ended with status %d", x->end.status);
    if (ended && x->end.signal && strcmp(name, "SIGXCPU") == 0)
        buffer_append_format(out, " after its %" PRIu64 " s of processor time", c->limits.cpu_s);
    if (x->last_error.size) {
        buffer_append_string(out, ": ");
        buffer_append_bytes(out, buffer_bytes(&x->last_error));
    }
    return TASK_OUTCOME_FAILED;
}

static enum task_outcome refuse(struct execution *x, const char *sentence) {
    buffer_append_string(task_run_text(x->run), sentence);
    return TASK_OUTCOME_REFUSED;
}

static enum task_outcome execute(struct execution *x, const struct command *c) {
    int r = start(x, c);
    if (r == OS_E_NOT_FOUND || r == OS_E_DENIED)
        return refuse(x, r == OS_E_DENIED ? "its program may not be run by this user"
                                          : "its program is not there");
    if (r) {
        buffer_append_string(task_run_text(x->run), "it cannot be started now");
        return TASK_OUTCOME_FAILED;
    }
    bool ended = attend(x, c->time_s);
    r = child_kill_strays(NULL, 0, NULL);
    if (r) /* memory is out: the end of the worker does it */
        buffer_append_string(task_run_text(x->run), "what it left may run still; ");
    return r == 0 && ended && !x->end.signal && x->end.status == 0 ? succeed(x) : fail(x, c, ended);
}

static void execution_deinit(struct execution *x) {
    close_end(&x->in);
    close_end(&x->out);
    close_end(&x->error);
    buffer_deinit(&x->input);
    buffer_deinit(&x->line);
    buffer_deinit(&x->result);
    buffer_deinit(&x->last_error);
    json_parser_free(x->parser);
}

/* The parser of the arguments is not asked again before they are copied. */
static int prepare(struct execution *x, struct json_value args) {
    struct json_value own;
    if (json_find(args, "args", &own))
        json_append_value(&x->input, own);
    else
        buffer_append_string(&x->input, "{}");
    buffer_append_u8(&x->input, '\n');
    int r = buffer_check(&x->input);
    return r ? r : json_parser_new(LINE_MAX_BYTES, &x->parser);
}

static enum task_outcome run(struct task_run *r) {
    CLEANUP(execution_deinit)
    struct execution x = {.run = r, .in = -1, .out = -1, .error = -1};
    struct json_value args = task_run_arguments(r);
    struct bytes name = argument_string(args, "command");
    char sentence[COMMAND_SENTENCE_MAX];
    struct command command;
    int result = command_load(os_real(), task_run_settings(r)->commands, name, &command, sentence);
    if (result > 0)
        return refuse(&x, sentence);
    if (result < 0 || prepare(&x, args)) {
        buffer_append_string(task_run_text(r), "memory is out");
        if (result == 0)
            command_deinit(&command);
        return TASK_OUTCOME_FAILED;
    }
    enum task_outcome outcome = execute(&x, &command);
    command_deinit(&command);
    return outcome;
}

const struct task_handler task_handler_exec = {
    .type = "exec",
    .summary = "Runs a configured command: its args go to standard input as JSON, and lines of "
               "{\"current\":…,\"total\":…} on standard output are progress.",
    .args = "{command!: string, args: object = {}}",
    .check = check,
    .run = run,
};
