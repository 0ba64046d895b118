/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rule of scaling: see scale.h.
 */
#include "tasks/scale.h"

#include <stdbool.h>

enum scale scale_decide(const struct scale_inputs *in) {
    bool waits = in->waited_ms != UINT64_MAX;
    if (in->workers < in->min || (in->workers == 0 && waits && in->max > 0))
        return SCALE_UP;
    if (in->workers > in->max)
        return in->idle > 0 ? SCALE_DOWN : SCALE_KEEP;
    if (in->workers < in->max && in->idle == 0 && waits && in->waited_ms >= SCALE_UP_MS &&
        in->since_ms >= SCALE_UP_MS)
        return SCALE_UP;
    if (in->workers > in->min && in->idle > 0 && !waits && in->idle_ms >= SCALE_DOWN_MS)
        return SCALE_DOWN;
    return SCALE_KEEP;
}
