/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which servers may be asked, as who runs this one says it: a list, separated by commas, of
 *
 *   files.example.org        this name, at port 80 (http) or 443 (https)
 *   files.example.org:8080   at this port only
 *   *.example.org            every name below it, but not itself
 *   [::1]:8080               addresses, those of version 6 in brackets
 *
 * Nothing else is allowed: an empty list allows nothing. Names are compared as they are written,
 * not by what they resolve to. Pure; thread-safe.
 */
#ifndef MILLRACE_HTTP_HOSTS_H
#define MILLRACE_HTTP_HOSTS_H

#include "base/bytes.h"

/* True when every entry of the list is one; else ret_entry is the first that is not. */
bool hosts_check(const char *list, struct bytes *ret_entry);
/* host as it stands in a URL, in brackets if it is an address of version 6. usual: the port is that
 * of the URL's scheme. */
bool hosts_allow(const char *list, const char *host, unsigned port, bool usual);

#endif
