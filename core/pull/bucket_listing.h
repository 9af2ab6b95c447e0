/* bucket_listing.h: what a bucket of files has below a prefix, as S3 tells it in XML (GET /?list-type=2&prefix=...), a page of at most
 * 1,000 names at a time.
 *
 * The text comes from a network. It is no reader of XML at large: elements are those that S3 writes, without attributes but at the root; a
 * page that does not end as one is refused, a name that is not plain text below the prefix is passed over. Private to core/pull/. */
#ifndef STEERD_CORE_PULL_BUCKET_LISTING_H
#define STEERD_CORE_PULL_BUCKET_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"

struct bucket_file {
  const char *path; /* below the prefix: "explanations/batch-0.jsonl.gz"; as the bucket says it, so not yet a path to write to */
  const char *tag;  /* letters, digits and '-', at most 70, that change with the content; "" where the bucket tells none */
  int64_t size;     /* bytes */
  bool wanted;      /* for who reads it; false here */
};

struct bucket_listing {
  struct arena arena;
  struct bucket_file *files;
  const char **folders; /* what stands for names that go on behind a delimiter, below the prefix, without the delimiter */
  size_t n, n_folders;
  char next[1100]; /* goes into the next page's request; "" at the last */
};

void bucket_listing_init(struct bucket_listing *listing);
void bucket_listing_clear(struct bucket_listing *listing);

/* Adds a page; `prefix` is what was asked for. ERROR_FORMAT: no such page; ERROR_LIMIT: more than 100,000 names; ERROR_MEMORY. */
int bucket_listing_add(struct bucket_listing *listing, const char *xml, size_t length, const char *prefix, struct error *error) MUST_CHECK;

#endif
