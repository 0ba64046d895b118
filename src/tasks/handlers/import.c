/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import takes a source (source.h) into a collection, or into the events:
 *
 *   source ──pieces──▶ cutter ──chunks──▶ POST /ingest/{collection}?task=false      points
 *                                         POST /user_tags/batch, Idempotency-Key    events
 *
 * It asks the server's own API, so that parsing, validation, limits and durability are in one
 * place, and a chunk counts once its answer is there. Then how far it came is saved: a later
 * attempt reads the source from its start, skips what is dealt with, and goes on.
 *
 *   - What was sent and not saved is sent again, as the same chunk: events have it once in effect
 * by the key, which is made of the task and the number of the chunk's first record; points, because
 *     they are replaced by themselves.
 *   - A source that has changed since is not gone on with.
 *   - Where the server refuses for now (429, 5xx), or does not answer, it is asked again, as late
 * as it says, for up to REFUSED_MAX_MS.
 */
#include "os/os.h"
#include "tasks/handler.h"
#include "tasks/handlers/arguments.h"
#include "tasks/handlers/cutter.h"
#include "tasks/handlers/import_state.h"
#include "tasks/handlers/source.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PATH_MAX_BYTES = 4096,
    URL_MAX_BYTES = 8192,
    NAME_MAX_BYTES = 255,
    TARGET_BYTES = 2048,
    STALL_S = 30,
    STALL_S_MAX = 3600,
    POINT_MAX_BYTES = 16 << 20,
    TAG_MAX_BYTES = 64 << 10,
    ASK_MS = 120000,
    WAIT_MS = 50, /* before the first time it is asked again; then twice as long each time */
    WAIT_MAX_MS = 5000,
    REFUSED_MAX_MS = 600000,
    IN_VAIN = 1000, /* after which it gives up if none was good */
    NS_PER_MS = 1000000,
};

static const struct argument_row rows[] = {
    {.name = "path", .type = JSON_STRING},
    {.name = "url", .type = JSON_STRING},
    {.name = "collection", .type = JSON_STRING},
    {.name = "events", .type = JSON_BOOL},
    {.name = "stall_s", .type = JSON_INT, .min = 1, .max = STALL_S_MAX},
};

/* ---- Arguments ---- */

static bool fits(struct bytes text, size_t max) {
    return text.size > 0 && text.size <= max && !memchr(text.data, '\0', text.size);
}

static bool is_true(struct json_value args, const char *name) {
    struct json_value value;
    bool is = false;
    return json_find(args, name, &value) && json_get_bool(value, &is) && is;
}

/* What is wrong with them, or NULL. */
static const char *fault_of(struct json_value args) {
    struct json_value value;
    bool path = json_find(args, "path", &value), url = json_find(args, "url", &value);
    bool collection = json_find(args, "collection", &value), events = is_true(args, "events");
    if (path == url)
        return "args must have one of path and url";
    if (collection == events)
        return "args must have one of collection and events (true)";
    if (path && !fits(argument_string(args, "path"), PATH_MAX_BYTES))
        return "args.path must be a path of 1 to 4096 bytes";
    if (url && !fits(argument_string(args, "url"), URL_MAX_BYTES))
        return "args.url must be a URL of 1 to 8192 bytes";
    if (collection && !fits(argument_string(args, "collection"), NAME_MAX_BYTES))
        return "args.collection must be a name of 1 to 255 bytes";
    return NULL;
}

/* NULL: imports of that kind are on. */
static const char *option_missing(struct json_value args, const struct task_imports *imports) {
    bool is_file = argument_string(args, "path").size;
    const char *option = is_file ? imports->directory : imports->hosts;
    if (option && *option)
        return NULL;
    return is_file ? "files are not imported here: the server was started without --import-dir"
                   : "URLs are not imported here: the server was started without --import-hosts";
}

static const char no_imports[] =
    "there are no imports where processes share the journal (partitions in --journal): a worker "
    "has no API to post to. Post what is to be imported yourself";

static bool check(struct json_value args, const struct task_settings *settings, char *sentence,
                  size_t size) {
    if (!arguments_check(rows, ARRAY_LENGTH(rows), args, sentence, size))
        return false;
    const char *fault = settings && settings->no_api ? no_imports : fault_of(args);
    if (!fault && settings)
        fault = option_missing(args, &settings->imports);
    if (fault)
        (void)snprintf(sentence, size, "%s", fault);
    return !fault;
}

/* ---- An import under way ---- */

enum { IMPORT_E_ENDED = 1 }; /* with `outcome`, and `text` where it is no success */

struct import {
    struct task_run *run;
    struct transfers *transfers;
    struct source source;
    struct cutter cutter;
    struct json_parser *parser; /* of answers */
    struct question_answer answer;
    struct import_state state;
    struct buffer saved;
    bool events;
    char origin[URL_MAX_BYTES + 1]; /* path or URL */
    char target[TARGET_BYTES];      /* of the chunks, but for their first_id */
    char key_header[80];
    uint64_t refused_since_ns; /* 0: it is not */
    unsigned refusals;         /* since then */
    enum task_outcome outcome;
};

/* Ends it with a sentence. */
static int PRINTF_LIKE(3, 4)
    end(struct import *im, enum task_outcome outcome, const char *format, ...) {
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    im->outcome = outcome;
    if (im->state.seen)
        buffer_append_format(task_run_text(im->run),
                             "after record %" PRIu64 " (%" PRIu64 " accepted, %" PRIu64
                             " rejected): ",
                             im->state.seen, im->state.accepted, im->state.rejected);
    buffer_append_string(task_run_text(im->run), sentence);
    return IMPORT_E_ENDED;
}

static int end_stopped(struct import *im) {
    return end(im, TASK_OUTCOME_FAILED, "stopped");
}

static int end_transfer(struct import *im, int r, const char *sentence) {
    if (r < 0)
        return error_trace(r);
    if (r == TRANSFER_E_STOPPED)
        return end_stopped(im);
    return end(im, r == TRANSFER_E_REFUSED ? TASK_OUTCOME_REFUSED : TASK_OUTCOME_FAILED, "%s",
               sentence);
}

/* ---- Progress ---- */

/* Where the source is compressed, or read ahead of what was taken, it counts what was read. */
static int save(struct import *im) {
    buffer_clear(&im->saved);
    import_state_save(&im->state, &im->saved);
    int r = buffer_check(&im->saved);
    if (r == 0)
        task_run_progress(im->run, im->source.read_bytes, im->source.total_bytes,
                          buffer_bytes(&im->saved));
    return error_trace(r);
}

/* ---- Answers ---- */

static int parse_answer(struct import *im, struct json_value *ret_root) {
    struct buffer *body = &im->answer.body;
    if (!buffer_reserve(body, JSON_PADDING))
        return error_origin(-ENOMEM);
    int r = json_parse(im->parser, buffer_bytes(body), ret_root);
    return r > 0 ? end(im, TASK_OUTCOME_FAILED, "the server's answer cannot be read") : r;
}

/* The rejected of a chunk, whose lines count from its first record. Not each may be listed. */
static void note_each(struct import *im, struct json_value list) {
    struct json_value entry, line, error;
    struct bytes sentence;
    uint64_t number;
    for (struct json_iterator it = json_iterate(list); json_next(&it, NULL, &entry);)
        if (json_find(entry, "line", &line) && json_get_u64(line, &number) &&
            json_find(entry, "error", &error) && json_get_string(error, &sentence))
            import_state_note(&im->state, im->cutter.first + number - 1, sentence);
}

/* {"accepted","rejected":n or [errors],"errors":[…]} */
static bool count_answer(struct import *im, struct json_value answer) {
    struct json_value accepted, list;
    uint64_t n;
    if (!json_find(answer, "accepted", &accepted) || !json_get_u64(accepted, &n) ||
        !json_find(answer, im->events ? "rejected" : "errors", &list))
        return false;
    note_each(im, list);
    im->state.accepted += n;
    im->state.rejected += im->cutter.n > n ? im->cutter.n - n : 0;
    return true;
}

static int take_answer(struct import *im) {
    struct json_value root, counts;
    int r = parse_answer(im, &root);
    if (r)
        return error_trace(r);
    counts = root;
    bool known = im->events || json_find(root, "result", &counts);
    if (!known || !count_answer(im, counts))
        return end(im, TASK_OUTCOME_FAILED, "the server's answer is not what was expected");
    im->state.seen = im->cutter.seen;
    im->refusals = 0;
    im->refused_since_ns = 0;
    return 0;
}

/* The sentence of an error's answer, or the status. */
static int end_refused(struct import *im) {
    struct json_value root, error, code, text;
    struct bytes message, name;
    unsigned status = im->answer.status;
    int r = parse_answer(im, &root);
    if (r)
        return error_trace(r);
    if (!json_find(root, "error", &error) || !json_find(error, "message", &text) ||
        !json_find(error, "code", &code) || !json_get_string(text, &message) ||
        !json_get_string(code, &name))
        return end(im, TASK_OUTCOME_REFUSED, "the server refuses with status %u", status);
    if (bytes_equal(name, BYTES_LITERAL("key_reused")))
        return end(im, TASK_OUTCOME_REFUSED,
                   "the source is not the one that the task began with: start a new task");
    return end(im, status == 401 || status == 403 ? TASK_OUTCOME_FAILED : TASK_OUTCOME_REFUSED,
               "the server refuses (%u): %.*s", status, (int)message.size,
               (const char *)message.data);
}

/* ---- Chunks ---- */

/* Until it may be asked again. */
static int wait_for_server(struct import *im, const char *why) {
    uint64_t now_ns = os_monotonic_ns(os_real());
    uint64_t wait_ms = (uint64_t)WAIT_MS << (im->refusals < 7 ? im->refusals : 7);
    uint64_t asked_ms = 1000 * im->answer.retry_after_s;
    if (!im->refused_since_ns)
        im->refused_since_ns = now_ns;
    if (now_ns - im->refused_since_ns > (uint64_t)REFUSED_MAX_MS * NS_PER_MS)
        return end(im, TASK_OUTCOME_FAILED, "%s", why);
    wait_ms = wait_ms > asked_ms ? wait_ms : asked_ms;
    task_run_sleep_ms(im->run, wait_ms < WAIT_MAX_MS ? wait_ms : WAIT_MAX_MS);
    im->refusals++;
    return task_run_stopped(im->run) ? end_stopped(im) : 0;
}

static void describe_chunk(struct import *im, char url[TARGET_BYTES + 32], struct question *q) {
    const struct task_imports *settings = &task_run_settings(im->run)->imports;
    bool array = im->cutter.form == CUTTER_ROWS;
    (void)snprintf(im->key_header, sizeof im->key_header, "api-key: %s", settings->key);
    (void)snprintf(url, TARGET_BYTES + 32, array ? "%s&first_id=%" PRIu64 : "%s", im->target,
                   im->cutter.first - 1);
    q->url = url;
    q->headers[0] =
        array ? "Content-Type: application/x-npy" : "Content-Type: application/x-ndjson";
    q->headers[1] = im->key_header;
    q->timeout_ms = ASK_MS;
}

/* One chunk, until it is taken. */
static int deliver(struct import *im) {
    char url[TARGET_BYTES + 32], once[64];
    struct question q = {0};
    describe_chunk(im, url, &q);
    if (im->events) {
        (void)snprintf(once, sizeof once, "Idempotency-Key: import-%016" PRIx64 "-%" PRIu64,
                       task_run_key(im->run), im->cutter.first);
        q.headers[2] = once;
    }
    int r = cutter_body(&im->cutter, &q.body);
    while (r == 0) {
        char why[128] = "the server refuses for too long";
        im->answer.retry_after_s = 0;
        r = transfers_ask(im->transfers, &q, &im->answer);
        if (r == 0 && im->answer.status == 200)
            return error_trace(take_answer(im));
        if (r == 0 && im->answer.status < 500 && im->answer.status != 429)
            return error_trace(end_refused(im));
        if (r != 0 && r != TRANSFER_E_FAILED)
            return error_trace(end_transfer(im, r, ""));
        if (r)
            (void)snprintf(why, sizeof why, "%s", transfers_sentence(im->transfers));
        r = wait_for_server(im, why);
    }
    return error_trace(r);
}

/* Most likely it is something else altogether. */
static int check_any_good(struct import *im, uint64_t enough) {
    const struct import_state *s = &im->state;
    if (s->accepted || s->rejected < enough)
        return 0;
    struct bytes first = import_state_first_error(s);
    return end(im, TASK_OUTCOME_REFUSED, "none of %" PRIu64 " records was good: %.*s", s->rejected,
               (int)first.size, (const char *)first.data);
}

static int send_chunk(struct import *im) {
    if (im->cutter.n == 0)
        return 0;
    if (im->events && im->cutter.form == CUTTER_ROWS)
        return end(im, TASK_OUTCOME_REFUSED, "an array of numbers holds no events");
    int r = deliver(im);
    if (r)
        return error_trace(r);
    cutter_clear(&im->cutter);
    r = check_any_good(im, IN_VAIN);
    return r ? r : save(im);
}

/* ---- The whole ---- */

static int succeed(struct import *im) {
    int r = check_any_good(im, 1);
    if (r)
        return error_trace(r);
    if (im->state.accepted == 0)
        return end(im, TASK_OUTCOME_REFUSED, "the source holds no records");
    r = save(im);
    if (r)
        return error_trace(r);
    import_state_append_result(&im->state, task_run_text(im->run));
    im->outcome = TASK_OUTCOME_SUCCEEDED;
    return IMPORT_E_ENDED;
}

/* 0 also at the end of the source: the cutter says so next. */
static int read_on(struct import *im) {
    struct bytes piece;
    int r = source_read(&im->source, &piece);
    if (r == TRANSFER_E_END) {
        cutter_finish(&im->cutter);
        return 0;
    }
    return r ? end_transfer(im, r, im->source.sentence) : cutter_feed(&im->cutter, piece);
}

/* What the cutter said. */
static int go_on(struct import *im, int r) {
    switch (r) {
    case 0:
        return send_chunk(im);
    case CUTTER_E_MORE:
        return read_on(im);
    case CUTTER_E_TOO_LARGE:
        im->state.rejected++;
        import_state_note(&im->state, im->cutter.seen,
                          BYTES_LITERAL("the record is longer than one may be"));
        return 0;
    case CUTTER_E_END:
        r = send_chunk(im);
        return r ? error_trace(r) : succeed(im);
    case CUTTER_E_BROKEN:
        r = send_chunk(im);
        return r ? error_trace(r) : end(im, TASK_OUTCOME_REFUSED, "%s", im->cutter.sentence);
    default:
        return error_trace(r);
    }
}

static int take_all(struct import *im) {
    int r = 0;
    while (r == 0) {
        if (task_run_stopped(im->run))
            return end_stopped(im);
        r = go_on(im, cutter_next(&im->cutter));
    }
    return error_trace(r);
}

/* ---- Start and end ---- */

static bool stopped(const void *run) {
    return task_run_stopped(run);
}

static void copy_text(char *out, size_t size, struct bytes text) {
    assert(text.size < size);
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
}

/* A name as a segment of a path. */
static void append_escaped(char *out, size_t size, struct bytes name) {
    size_t at = strlen(out);
    for (size_t i = 0; i < name.size && at + 4 < size; i++)
        at += (size_t)snprintf(out + at, size - at, isalnum(name.data[i]) ? "%c" : "%%%02X",
                               name.data[i]);
}

static void choose_target(struct import *im, struct json_value args) {
    const struct task_imports *settings = &task_run_settings(im->run)->imports;
    im->events = is_true(args, "events");
    (void)snprintf(im->target, sizeof im->target, "%s%s", settings->url,
                   im->events ? "/user_tags/batch" : "/ingest/");
    if (im->events)
        return;
    append_escaped(im->target, sizeof im->target - 16, argument_string(args, "collection"));
    size_t size = strlen(im->target);
    (void)snprintf(im->target + size, sizeof im->target - size, "?task=false");
}

/* The parser of the arguments is asked by nothing else meanwhile. */
static int open_source(struct import *im, struct json_value args) {
    const struct task_imports *settings = &task_run_settings(im->run)->imports;
    struct bytes path = argument_string(args, "path"), url = argument_string(args, "url");
    const struct source_options options = {.path = path.size ? im->origin : NULL,
                                           .url = im->origin,
                                           .directory = settings->directory,
                                           .hosts = settings->hosts,
                                           .stall_ms =
                                               1000 * argument_u64(args, "stall_s", STALL_S),
                                           .max_bytes = settings->max_bytes};
    copy_text(im->origin, sizeof im->origin, path.size ? path : url);
    int r = source_open(&im->source, im->transfers, &options);
    return r ? end_transfer(im, r, im->source.sentence) : 0;
}

/* Where an earlier attempt ended, if it was in the same source. */
static int take_up(struct import *im) {
    bool known = import_state_load(&im->state, task_run_saved(im->run));
    if (known && im->state.source != im->source.version)
        return end(im, TASK_OUTCOME_REFUSED,
                   "the source is not the one that the task began with: start a new task");
    im->state.source = im->source.version;
    cutter_init(&im->cutter, im->events ? TAG_MAX_BYTES : POINT_MAX_BYTES, im->state.seen);
    return 0;
}

static int work_through(struct import *im) {
    const struct transfers_options options = {.stopped = stopped, .context = im->run};
    struct json_value args = task_run_arguments(im->run);
    char sentence[256];
    if (!check(args, task_run_settings(im->run), sentence, sizeof sentence))
        return end(im, TASK_OUTCOME_REFUSED, "%s", sentence);
    int r = json_parser_new(QUESTION_ANSWER_MAX_BYTES, &im->parser);
    if (r == 0)
        r = transfers_new(&options, &im->transfers);
    choose_target(im, args);
    if (r == 0)
        r = open_source(im, args);
    if (r == 0)
        r = take_up(im);
    return r ? error_trace(r) : take_all(im);
}

static struct import *import_free(struct import *im) {
    cutter_deinit(&im->cutter);
    source_deinit(&im->source);
    transfers_free(im->transfers);
    json_parser_free(im->parser);
    buffer_deinit(&im->answer.body);
    buffer_deinit(&im->saved);
    import_state_deinit(&im->state);
    free(im);
    return NULL;
}

static enum task_outcome run(struct task_run *r) {
    struct import *im = calloc(1, sizeof *im);
    if (!im) {
        buffer_append_string(task_run_text(r), "memory is out");
        return TASK_OUTCOME_FAILED;
    }
    im->run = r;
    im->source.file.fd = -1;
    int result = work_through(im);
    enum task_outcome outcome = im->outcome;
    if (result < 0) {
        (void)end(im, TASK_OUTCOME_FAILED, "memory is out");
        outcome = TASK_OUTCOME_FAILED;
    }
    import_free(im);
    return outcome;
}

const struct task_handler task_handler_import = {
    .type = "import",
    .summary = "Takes a file (path, below --import-dir) or a URL (of --import-hosts) into a "
               "collection or the events: NDJSON, a JSON array, or a float32 .npy; also gzip and "
               "zstd.",
    .args = "{path: string = \"movies.ndjson.gz\", url: string, collection: string = \"movies\", "
            "events: boolean, stall_s: 1..3600}",
    .posts = true,
    .check = check,
    .run = run,
};
