/* copy.h: the pages of a store, as they are at one moment, in another file. Private to the room. */
#ifndef STEERD_CORE_STORE_COPY_H
#define STEERD_CORE_STORE_COPY_H

#include "core/store/care.h"
#include "core/store/connection.h"

enum copy_over { COPY_REFUSES, COPY_REPLACES };

/* Everything that `from` sees, in a new file `path` with mode 0600, on the disk when this returns; under another name until it is
 * whole. The present transaction of `from`, or one for the time being. ERROR_ARGUMENT: COPY_REFUSES, and `path` is there; ERROR_IO:
 * its folder; ERROR_STORAGE: its disk; ERROR_STORE: a page of `from` is damaged; ERROR_CANCELLED: `tell` said so. */
int copy_pages(struct connection *from, const char *path, enum copy_over over, const struct store_tell *tell, struct error *error) MUST_CHECK;

#endif
