/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever decodes as a point record lies inside the bytes it came from, and encodes to the same
 * bytes again.
 */
#include "fuzz.h"

#include "points/home.h"

static void check_inside(struct bytes whole, struct bytes part) {
    if (part.size)
        FUZZ_CHECK(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void encode(struct buffer *out, const struct point_record *r,
                   const struct point_config *config) {
    size_t n_floats = r->vectors.size / sizeof(float);
    switch (r->op) {
    case POINT_UPSERT: /* the floats are not aligned in the record */
        FUZZ_CHECK(buffer_reserve(out, POINT_RECORD_HEADER));
        point_record_store_header(out->data, r->incarnation, r->id, r->vector_mask, n_floats);
        out->size = POINT_RECORD_HEADER;
        buffer_append_bytes(out, r->vectors);
        buffer_append_bytes(out, r->payload);
        break;
    case POINT_DELETE:
        point_record_encode_delete(out, r->incarnation, r->id);
        break;
    case POINT_CREATE:
        point_record_encode_create(out, r->name, config);
        break;
    case POINT_DROP:
        point_record_encode_drop(out, r->incarnation, r->applied);
        break;
    case POINT_BULK:
        point_record_encode_bulk(out, r->body);
        break;
    }
}

/* A configuration's settings may come in any order, so those are compared decoded. */
static bool same(struct bytes a, struct bytes b, enum point_op op) {
    struct point_record left, right;
    struct point_config x, y;
    if (op != POINT_CREATE)
        return bytes_equal(a, b);
    return point_record_decode(a, &left) && point_record_decode(b, &right) &&
           bytes_equal(left.name, right.name) && point_config_decode(left.body, &x) &&
           point_config_decode(right.body, &y) && x.settings_given == y.settings_given &&
           x.n_vectors == y.n_vectors && x.row_floats == y.row_floats;
}

/* Of a shared journal: the home in front, and the record behind it, are what was given. */
static void try_home(struct bytes whole) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes home, rest, name;
    struct point_config config, again;
    if (!point_home_split(whole, &home, &rest))
        return;
    check_inside(whole, home);
    FUZZ_CHECK(home.size + rest.size == whole.size);
    if (!point_home_decode(home, &name, &config))
        return;
    check_inside(home, name);
    point_home_encode(&out, name, &config);
    struct bytes encoded = buffer_bytes(&out);
    FUZZ_CHECK(point_home_split(encoded, &home, &rest) && rest.size == 0);
    FUZZ_CHECK(point_home_decode(home, &name, &again) && again.row_floats == config.row_floats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes whole = bytes_of(data, size);
    try_home(whole);
    struct point_record r;
    struct point_config config;
    if (!point_record_decode(whole, &r))
        return 0;
    check_inside(whole, r.vectors);
    check_inside(whole, r.payload);
    check_inside(whole, r.name);
    check_inside(whole, r.body);
    if (r.op == POINT_CREATE && !point_config_decode(r.body, &config))
        return 0;
    encode(&out, &r, &config);
    if (r.ordering != POINT_ORDERING_WEAK)
        point_record_set_ordering(out.data, r.ordering);
    FUZZ_CHECK(r.op == POINT_DROP || r.op == POINT_BULK || r.op == POINT_CREATE ||
               same(whole, buffer_bytes(&out), r.op));
    if (r.op == POINT_CREATE)
        FUZZ_CHECK(same(whole, buffer_bytes(&out), r.op));
    return 0;
}
