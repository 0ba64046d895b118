/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One multi handle drives all transfers of a struct transfers: each is an easy handle with a struct
 * job as its private pointer, by which it is told that it is done.
 *
 *   download:  opening ── head of 200 ──▶ coming ◀──▶ paused (INPUT_MAX_BYTES unread) ── done ──▶
 * end │  ▲ └──┘ a redirect to a host of the list, at most REDIRECTS_MAX times
 *
 * A download has two buffers: curl fills one while the caller reads the other.
 */
#include "http/transfer.h"

#include "base/hash.h"
#include "http/hosts.h"
#include "os/os.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
    LOOK_MS = 50,
    CONNECT_MS = 10000,
    REDIRECTS_MAX = 5,
    INPUT_MAX_BYTES = 256 << 10,
    SENTENCE_SIZE = 512,
    NS_PER_MS = 1000000,
};

struct transfers {
    struct transfers_options options;
    CURLM *multi;
    CURL *asker; /* reused, with its connection */
    char sentence[SENTENCE_SIZE];
};

struct job {
    CURL *easy;
    bool done;
    CURLcode result;
    char error[CURL_ERROR_SIZE]; /* curl's own words, or "" */
};

struct download {
    struct job job;
    struct transfers *transfers;
    const char *hosts;
    CURLU *url;
    uint64_t stall_ms;
    uint64_t heard_ns;
    long status; /* 0: the head is not there yet */
    uint64_t length;
    uint64_t version;
    bool paused;
    struct buffer in;
    struct buffer out; /* what the caller reads */
};

static int PRINTF_LIKE(3, 4) say(struct transfers *t, int condition, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(t->sentence, sizeof t->sentence, format, arguments);
    va_end(arguments);
    return condition;
}

const char *transfers_sentence(const struct transfers *t) {
    return t->sentence;
}

int transfers_new(const struct transfers_options *options, struct transfers **ret_t) {
    struct transfers *t = calloc(1, sizeof *t);
    if (!t)
        return error_origin(-ENOMEM);
    t->options = *options;
    bool initialised = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    t->multi = initialised ? curl_multi_init() : NULL;
    t->asker = t->multi ? curl_easy_init() : NULL;
    if (!t->asker) {
        if (t->multi)
            (void)curl_multi_cleanup(t->multi);
        if (initialised)
            curl_global_cleanup();
        free(t);
        return error_origin(-ENOMEM);
    }
    *ret_t = t;
    return 0;
}

struct transfers *transfers_free(struct transfers *t) {
    if (!t)
        return NULL;
    curl_easy_cleanup(t->asker);
    (void)curl_multi_cleanup(t->multi); /* it is empty */
    curl_global_cleanup();
    free(t);
    return NULL;
}

/* ---- The turn ---- */

static void take_ends(struct transfers *t) {
    int left;
    for (const CURLMsg *m; (m = curl_multi_info_read(t->multi, &left));) {
        struct job *job = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&job);
        job->done = true;
        job->result = m->data.result;
    }
}

/* What can be done without waiting. */
static int work_off(struct transfers *t) {
    int running;
    if (t->options.stopped(t->options.context))
        return say(t, TRANSFER_E_STOPPED, "stopped");
    if (curl_multi_perform(t->multi, &running) != CURLM_OK)
        return error_origin(-ENOMEM);
    take_ends(t);
    return 0;
}

static void wait_a_moment(struct transfers *t) {
    (void)curl_multi_poll(t->multi, NULL, 0, LOOK_MS, NULL); /* what fails shows in perform */
}

static int start(struct transfers *t, struct job *job) {
    job->done = false;
    job->error[0] = '\0';
    return curl_multi_add_handle(t->multi, job->easy) == CURLM_OK ? 0 : error_origin(-ENOMEM);
}

static void stop(struct transfers *t, const struct job *job) {
    (void)curl_multi_remove_handle(t->multi, job->easy);
}

static const char *reason(const struct job *job) {
    return job->error[0] ? job->error : curl_easy_strerror(job->result);
}

/* What all have in common. False: memory is out. */
static bool set_up(struct job *job) {
    CURL *e = job->easy;
    return curl_easy_setopt(e, CURLOPT_PRIVATE, job) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_ERRORBUFFER, job->error) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_USERAGENT, "millrace/" MILLRACE_VERSION) == CURLE_OK;
}

/* ---- Where a download may go ---- */

struct place {
    char *scheme, *host, *port, *user;
};

static void place_deinit(struct place *p) {
    curl_free(p->scheme);
    curl_free(p->host);
    curl_free(p->port);
    curl_free(p->user);
}

/* Judged is what curl read, and what it read is what it then gets: there is no second reading. */
static int check_place(struct download *d, const char *url) {
    CLEANUP(place_deinit) struct place p = {0};
    struct transfers *t = d->transfers;
    if (curl_url_get(d->url, CURLUPART_SCHEME, &p.scheme, 0) != CURLUE_OK ||
        curl_url_get(d->url, CURLUPART_HOST, &p.host, 0) != CURLUE_OK ||
        curl_url_get(d->url, CURLUPART_PORT, &p.port, CURLU_DEFAULT_PORT) != CURLUE_OK)
        return say(t, TRANSFER_E_REFUSED, "the URL %s has no host", url);
    bool secure = strcasecmp(p.scheme, "https") == 0;
    if (!secure && strcasecmp(p.scheme, "http") != 0)
        return say(t, TRANSFER_E_REFUSED, "only http and https are allowed, not %s", p.scheme);
    if (curl_url_get(d->url, CURLUPART_USER, &p.user, 0) == CURLUE_OK)
        return say(t, TRANSFER_E_REFUSED, "a URL with a user name is not allowed");
    unsigned port = (unsigned)strtoul(p.port, NULL, 10);
    if (!hosts_allow(d->hosts, p.host, port, port == (secure ? 443 : 80)))
        return say(t, TRANSFER_E_REFUSED,
                   "%s:%u is not among the hosts that imports may ask: see --import-hosts", p.host,
                   port);
    return 0;
}

static int go_to(struct download *d, const char *url) {
    CURLUcode wrong = curl_url_set(d->url, CURLUPART_URL, url, 0);
    char *read = NULL;
    if (wrong == CURLUE_OUT_OF_MEMORY)
        return error_origin(-ENOMEM);
    if (wrong)
        return say(d->transfers, TRANSFER_E_REFUSED, "%s is no URL that can be asked: %s", url,
                   curl_url_strerror(wrong));
    int r = check_place(d, url);
    if (r)
        return error_trace(r);
    bool set = curl_url_get(d->url, CURLUPART_URL, &read, 0) == CURLUE_OK &&
               curl_easy_setopt(d->job.easy, CURLOPT_URL, read) == CURLE_OK;
    curl_free(read);
    return set ? 0 : error_origin(-ENOMEM);
}

/* Where the answer points to; from https not to http. */
static int follow(struct download *d) {
    char *there = NULL;
    struct transfers *t = d->transfers;
    CLEANUP(place_deinit) struct place from = {0};
    (void)curl_easy_getinfo(d->job.easy, CURLINFO_REDIRECT_URL, &there);
    if (!there)
        return say(t, TRANSFER_E_REFUSED, "the source answers %ld without a place to go to",
                   d->status);
    if (curl_url_get(d->url, CURLUPART_SCHEME, &from.scheme, 0) != CURLUE_OK)
        return error_origin(-ENOMEM);
    if (strcasecmp(from.scheme, "https") == 0 && strncasecmp(there, "https:", 6) != 0)
        return say(t, TRANSFER_E_REFUSED, "the source redirects from https to %s", there);
    char *copy = strdup(there); /* it is the handle's, which is about to be used again */
    if (!copy)
        return error_origin(-ENOMEM);
    stop(t, &d->job);
    int r = go_to(d, copy);
    free(copy);
    d->status = 0;
    d->length = d->version = 0;
    return r ? error_trace(r) : start(t, &d->job);
}

/* ---- What comes ---- */

static bool is_header(struct bytes line, const char *name) {
    size_t size = strlen(name);
    return line.size > size && strncasecmp((const char *)line.data, name, size) == 0;
}

static void end_head(struct download *d) {
    curl_off_t length = -1;
    long status = 0;
    (void)curl_easy_getinfo(d->job.easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(d->job.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (status < 200 || d->status) /* another head follows; or it is a trailer */
        return;
    d->status = status;
    d->length = length > 0 ? (uint64_t)length : 0;
    d->version = hash64_u64(d->version ^ d->length);
}

static size_t take_header(char *data, size_t size, size_t n, void *download) {
    struct download *d = download;
    struct bytes line = bytes_of(data, size * n);
    d->heard_ns = os_monotonic_ns(os_real());
    if (is_header(line, "ETag:") || is_header(line, "Last-Modified:"))
        d->version = hash64_u64(d->version) ^ hash64(line.data, line.size);
    if (line.size <= 2)
        end_head(d);
    return line.size;
}

static size_t take_body(char *data, size_t size, size_t n, void *download) {
    struct download *d = download;
    size_t bytes = size * n;
    d->heard_ns = os_monotonic_ns(os_real());
    if (d->status != 200)
        return bytes; /* of a redirect, or an error: nobody reads it */
    if (d->in.size >= INPUT_MAX_BYTES) {
        d->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    buffer_append(&d->in, data, bytes);
    return d->in.failed ? 0 : bytes;
}

/* ---- Downloads ---- */

struct download *download_close(struct download *d) {
    if (!d)
        return NULL;
    if (d->job.easy) {
        stop(d->transfers, &d->job);
        curl_easy_cleanup(d->job.easy);
    }
    curl_url_cleanup(d->url);
    buffer_deinit(&d->in);
    buffer_deinit(&d->out);
    free(d);
    return NULL;
}

static int download_new(struct transfers *t, const struct download_options *o,
                        struct download **ret_download) {
    struct download *d = calloc(1, sizeof *d);
    if (!d)
        return error_origin(-ENOMEM);
    d->transfers = t;
    d->hosts = o->hosts;
    d->stall_ms = o->stall_ms;
    d->url = curl_url();
    d->job.easy = curl_easy_init();
    if (!d->url || !d->job.easy || !set_up(&d->job) ||
        curl_easy_setopt(d->job.easy, CURLOPT_HEADERFUNCTION, take_header) != CURLE_OK ||
        curl_easy_setopt(d->job.easy, CURLOPT_HEADERDATA, d) != CURLE_OK ||
        curl_easy_setopt(d->job.easy, CURLOPT_WRITEFUNCTION, take_body) != CURLE_OK ||
        curl_easy_setopt(d->job.easy, CURLOPT_WRITEDATA, d) != CURLE_OK) {
        download_close(d);
        return error_origin(-ENOMEM);
    }
    *ret_download = d;
    return 0;
}

static bool in_vain(CURLcode result) {
    switch (result) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return true;
    default:
        return false;
    }
}

static int failed(const struct download *d) {
    if (d->in.failed || d->job.result == CURLE_OUT_OF_MEMORY)
        return error_origin(-ENOMEM);
    return say(d->transfers, in_vain(d->job.result) ? TRANSFER_E_REFUSED : TRANSFER_E_FAILED,
               "the source cannot be read: %s", reason(&d->job));
}

/* One turn; TRANSFER_E_FAILED once nothing was heard for too long. */
static int listen_for(struct download *d) {
    uint64_t now_ns = os_monotonic_ns(os_real());
    if (now_ns - d->heard_ns > d->stall_ms * NS_PER_MS)
        return say(d->transfers, TRANSFER_E_FAILED, "nothing came from the source for %llu s",
                   (unsigned long long)(d->stall_ms / 1000));
    wait_a_moment(d->transfers);
    return work_off(d->transfers);
}

static int await_head(struct download *d) {
    d->heard_ns = os_monotonic_ns(os_real());
    int r = work_off(d->transfers);
    while (r == 0 && !d->status && !d->job.done)
        r = listen_for(d);
    return r == 0 && !d->status ? failed(d) : error_trace(r);
}

static bool redirects(long status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static int judge(const struct download *d) {
    if (d->status == 200)
        return 0;
    bool later = d->status >= 500 || d->status == 408 || d->status == 425 || d->status == 429;
    return say(d->transfers, later ? TRANSFER_E_FAILED : TRANSFER_E_REFUSED,
               "the source answers %ld", d->status);
}

static int open_url(struct download *d, const char *url) {
    int r = go_to(d, url);
    if (r == 0)
        r = start(d->transfers, &d->job);
    if (r == 0)
        r = await_head(d);
    for (unsigned n = 0; r == 0 && redirects(d->status); n++) {
        if (n == REDIRECTS_MAX)
            return say(d->transfers, TRANSFER_E_REFUSED, "the source redirects more than %d times",
                       REDIRECTS_MAX);
        r = follow(d);
        if (r == 0)
            r = await_head(d);
    }
    return r ? error_trace(r) : judge(d);
}

int download_open(struct transfers *t, const struct download_options *options,
                  struct download **ret_download) {
    struct download *d;
    int r = download_new(t, options, &d);
    if (r)
        return error_trace(r);
    r = open_url(d, options->url);
    if (r) {
        download_close(d);
        return error_trace(r);
    }
    *ret_download = d;
    return 0;
}

int download_read(struct download *d, struct bytes *ret_piece) {
    buffer_clear(&d->out);
    d->heard_ns = os_monotonic_ns(os_real()); /* the caller may have been away for long */
    if (d->paused && d->in.size == 0) {
        d->paused = false;
        (void)curl_easy_pause(d->job.easy, CURLPAUSE_CONT); /* what fails ends the transfer */
    }
    int r = work_off(d->transfers);
    while (r == 0 && d->in.size == 0 && !d->job.done)
        r = listen_for(d);
    if (r)
        return error_trace(r);
    if (d->in.size == 0 || d->in.failed)
        return d->job.result == CURLE_OK && !d->in.failed ? TRANSFER_E_END : failed(d);
    struct buffer empty = d->out;
    d->out = d->in;
    d->in = empty;
    *ret_piece = buffer_bytes(&d->out);
    return 0;
}

uint64_t download_length(const struct download *d) {
    return d->length;
}

uint64_t download_version(const struct download *d) {
    return d->version;
}

/* ---- Questions ---- */

struct reception {
    struct question_answer *answer;
    struct budget *budget;
    uint64_t max_bytes;
    bool too_long;
    bool no_room;
};

static size_t take_answer(char *data, size_t size, size_t n, void *reception) {
    struct reception *r = reception;
    struct buffer *body = &r->answer->body;
    r->too_long = body->size + size * n > r->max_bytes;
    if (r->too_long)
        return 0;
    if (body->size + size * n > QUESTION_ANSWER_FREE_BYTES) {
        r->no_room = !budget_take(r->budget, BUDGET_ANSWERS, size * n);
        if (r->no_room)
            return 0;
        r->answer->counted_bytes += size * n;
    }
    buffer_append(body, data, size * n);
    return body->failed ? 0 : size * n;
}

static void headers_free(struct curl_slist **headers) {
    curl_slist_free_all(*headers);
}

/* Expect: 100-continue would cost a round trip. */
static bool list_headers(const struct question *q, struct curl_slist **ret_headers) {
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    for (size_t i = 0; list && i < QUESTION_HEADERS_MAX && q->headers[i]; i++) {
        struct curl_slist *longer = curl_slist_append(list, q->headers[i]);
        if (!longer)
            curl_slist_free_all(list);
        list = longer;
    }
    *ret_headers = list;
    return list != NULL;
}

/* All but a GET without a body are a POST to curl, the method only its name. */
static bool set_method(CURL *e, const struct question *q) {
    if (q->body.size == 0 && q->method && strcmp(q->method, "GET") == 0)
        return true;
    return curl_easy_setopt(e, CURLOPT_POST, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body.size) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POSTFIELDS,
                            q->body.size ? (const char *)q->body.data : "") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method) == CURLE_OK;
}

static bool set_question(struct job *job, const struct question *q, struct curl_slist *headers,
                         struct reception *body) {
    CURL *e = job->easy;
    return set_up(job) && curl_easy_setopt(e, CURLOPT_URL, q->url) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK &&
           (!q->ca_file || curl_easy_setopt(e, CURLOPT_CAINFO, q->ca_file) == CURLE_OK) &&
           curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers) == CURLE_OK && set_method(e, q) &&
           curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)q->timeout_ms) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_answer) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEDATA, body) == CURLE_OK;
}

static void note_answer(const struct job *job, struct question_answer *answer) {
    char *type = NULL;
    (void)curl_easy_getinfo(job->easy, CURLINFO_CONTENT_TYPE, &type);
    (void)snprintf(answer->content_type, sizeof answer->content_type, "%s", type ? type : "");
}

static int await_answer(struct transfers *t, struct job *job, const struct reception *reception,
                        struct question_answer *answer) {
    curl_off_t retry_after_s = 0;
    long status = 0;
    int r = work_off(t);
    while (r == 0 && !job->done) {
        wait_a_moment(t);
        r = work_off(t);
    }
    if (r)
        return error_trace(r);
    if (reception->no_room)
        return error_origin(-ENOMEM);
    if (reception->too_long)
        return say(t, TRANSFER_E_REFUSED, "its answer has more than %llu MiB",
                   (unsigned long long)(reception->max_bytes >> 20));
    if (job->result != CURLE_OK)
        return say(t, TRANSFER_E_FAILED, "the server does not answer: %s", reason(job));
    (void)curl_easy_getinfo(job->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(job->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    note_answer(job, answer);
    answer->status = (unsigned)status;
    answer->retry_after_s = retry_after_s > 0 ? (uint64_t)retry_after_s : 0;
    return 0;
}

int transfers_ask(struct transfers *t, const struct question *question,
                  struct question_answer *answer) {
    CLEANUP(headers_free) struct curl_slist *headers = NULL;
    struct job job = {.easy = t->asker};
    struct reception reception = {.answer = answer,
                                  .budget = question->budget,
                                  .max_bytes = question->answer_max_bytes
                                                   ? question->answer_max_bytes
                                                   : QUESTION_ANSWER_MAX_BYTES};
    buffer_clear(&answer->body);
    answer->counted_bytes = 0;
    curl_easy_reset(t->asker); /* keeps the connection */
    if (!list_headers(question, &headers) || !set_question(&job, question, headers, &reception))
        return error_origin(-ENOMEM);
    int r = start(t, &job);
    if (r)
        return error_trace(r);
    r = await_answer(t, &job, &reception, answer);
    stop(t, &job);
    return error_trace(r);
}
