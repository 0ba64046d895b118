/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table from errno to condition. EWOULDBLOCK stands for a socket here; flock's is told
 * apart by its caller.
 */
#include "os/result.h"

#include <errno.h>

static const struct {
    int error;
    int condition;
} conditions[] = {
    {ENOENT, OS_E_NOT_FOUND},  {EEXIST, OS_E_EXISTS},       {ENOTEMPTY, OS_E_EXISTS},
    {ENOSPC, OS_E_FULL},       {EDQUOT, OS_E_FULL},         {EINTR, OS_E_INTERRUPTED},
    {EACCES, OS_E_DENIED},     {EPERM, OS_E_DENIED},        {EROFS, OS_E_DENIED},
    {EADDRINUSE, OS_E_IN_USE}, {EAGAIN, OS_E_AGAIN},        {ECONNRESET, OS_E_CLOSED},
    {EPIPE, OS_E_CLOSED},      {ECONNREFUSED, OS_E_CLOSED}, {ECONNABORTED, OS_E_CLOSED},
    {ETIMEDOUT, OS_E_CLOSED},  {EHOSTUNREACH, OS_E_CLOSED}, {ENETUNREACH, OS_E_CLOSED},
};

int os_result_at(int e, const char *file, int line) {
    for (size_t i = 0; i < ARRAY_LENGTH(conditions); i++)
        if (conditions[i].error == e)
            return conditions[i].condition;
    return error_mark_origin(-e, file, line);
}
