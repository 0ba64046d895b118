/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tag of the load: drawn from the seed and its number alone, so nothing has to be kept of it. Its
 * product_id is its number, so a tag that comes back can be drawn again and compared.
 *
 * Most names are the same in every run. A sample is this run's own: the cookies of one rank of
 * popularity in every `every`, and the origin, brand and category of one tag in TAG_OWN_ONE_IN.
 * Their names carry the run and the thread, so nobody else writes them.
 *
 * Event time: tag n happens n milliseconds after the start, the platform's 1,000 a second, at
 * whatever rate it is sent; one in 64 comes up to 30 s late. 86 million tags are a day.
 */
#ifndef MILLRACE_CLI_LOAD_TAGS_DRAW_H
#define MILLRACE_CLI_LOAD_TAGS_DRAW_H

#include "cli/load.h"

enum {
    TAG_COUNTRIES = 100,
    TAG_ORIGINS = 1000,
    TAG_BRANDS = 250,
    TAG_CATEGORIES = 67,
    TAG_DEVICES = 3,
    TAG_ACTIONS = 2, /* VIEW, BUY */
    TAG_PRICES = 16384,
    TAG_OWN_ONE_IN = 64,
    TAG_OWN_ORIGINS = 4,
    TAG_OWN_BRANDS = 2,
    TAG_OWN_CATEGORIES = 2,
    TAG_OWN_COOKIES_MAX = 1024, /* of a thread */
    TAG_HEAVY_SHARE = 4,        /* fifths of the tags, of heavy cookies if there are any */
    TAG_HEAVY_OF = 5,
    TAG_LATE_MS = 30000,
    TAG_MINUTE_MS = 60000,
    TAG_NAME_MAX = 48,
};

/* Counts and sums of prices; what a minute's cell holds. */
struct tag_sum {
    uint64_t count;
    uint64_t sum; /* prices are not negative */
};

struct tag_source {
    struct load_source base;
    uint64_t cookies;
    uint64_t heavy; /* the first of them; fewer than cookies; 0: Zipf's law */
    uint64_t every; /* ranks 0, every, 2 * every, … are this run's own cookies */
    int64_t start_ms;
    uint64_t visible_ns; /* an acknowledged tag must show in what is asked so much later */
    bool queries;
    char run[16]; /* what no other run has */
    uint64_t mix; /* of the seed */
    /* Set by begin and end, which run alone. */
    struct tag_sum (*before)[TAG_ACTIONS]; /* by minute from the start; NULL: not looked at */
    uint64_t end_profiles;                 /* checked at the end */
    uint64_t end_aggregates;
    char wrong[LOAD_SAMPLE_MAX]; /* the first at the end */
};

/* ---- A tag ---- */

struct tag {
    uint64_t number;
    int64_t time_ms;
    uint64_t rank; /* of the cookie, 0 is the most popular */
    uint32_t price;
    uint16_t origin; /* if own: of the own origins, … */
    uint8_t country;
    uint8_t device;
    uint8_t action;
    uint8_t brand;
    uint8_t category;
    bool own; /* origin, brand and category are this run's own */
};

void tag_draw(const struct tag_source *source, uint64_t number, struct tag *ret_tag);
static inline bool tag_is_tracked(const struct tag_source *source, const struct tag *tag) {
    return tag->rank % source->every == 0;
}
static inline int64_t tag_minute(int64_t time_ms) {
    return time_ms / TAG_MINUTE_MS;
}

/* JSON around a value, and the value: copied whole, so that no copy has a length of its own. */
struct tag_piece {
    char text[63];
    uint8_t size;
};

struct tag_pieces {
    const struct tag_source *source;
    unsigned thread;
    struct tag_piece countries[TAG_COUNTRIES];
    struct tag_piece devices[TAG_DEVICES][TAG_ACTIONS];
    struct tag_piece origins[TAG_ORIGINS + TAG_OWN_ORIGINS];
    struct tag_piece brands[TAG_BRANDS + TAG_OWN_BRANDS];
    struct tag_piece categories[TAG_CATEGORIES + TAG_OWN_CATEGORIES];
    int64_t minute;       /* whose text is */
    char minute_text[17]; /* "2022-03-22T12:15:" */
    /* The run's own cookie that was written last. */
    bool any_cookie;
    uint64_t cookie_rank;
    char cookie[TAG_NAME_MAX];
};

void tag_pieces_init(struct tag_pieces *pieces, const struct tag_source *source, unsigned thread);
/* Appends the tag as JSON. */
void tag_append(struct tag_pieces *pieces, const struct tag *tag, struct buffer *out);

/* The names of what this run and thread alone write: "<run>-<thread>-origin-1". */
enum tag_own { TAG_OWN_ORIGIN, TAG_OWN_BRAND, TAG_OWN_CATEGORY };
void tag_own_name(const struct tag_source *source, unsigned thread, enum tag_own what,
                  unsigned number, char out[TAG_NAME_MAX]);
void tag_cookie_name(const struct tag_source *source, unsigned thread, uint64_t rank,
                     char out[TAG_NAME_MAX]);
extern const char *const tag_action_names[TAG_ACTIONS];
/* "2022-03-22T12:15:00", with_ms: "….000". */
void tag_datetime(int64_t time_ms, bool with_ms, char out[TAG_NAME_MAX]);

#endif
