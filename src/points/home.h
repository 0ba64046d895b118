/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a point belongs, said by its record: the collection's name and the vectors that it had when
 * the record was made. In a journal that many processes share there is no catalog that all of them
 * know, so a record there is a home and behind it the record of record.c, whose incarnation is only
 * the hash of the name: it makes the key's.
 *
 *   0  u8   version (1)
 *   1  u8   0, 0, 0
 *   4  u32  bytes of the home, these eight included
 *   8  u32  bytes of the name, and the name
 *   …  the configuration (record.c), without settings
 */
#ifndef MILLRACE_POINTS_HOME_H
#define MILLRACE_POINTS_HOME_H

#include "points/point.h"

/* The incarnation of every collection of that name. */
lsn_t point_home_incarnation(struct bytes name);
void point_home_encode(struct buffer *out, struct bytes name, const struct point_config *config);
/* Cuts a record in two, views into payload. False: it does not begin with a home. */
bool point_home_split(struct bytes payload, struct bytes *ret_home,
                      struct bytes *ret_record) MUST_USE;
/* False: not of a version known here. ret_name is a view. */
bool point_home_decode(struct bytes home, struct bytes *ret_name,
                       struct point_config *ret_config) MUST_USE;

#endif
