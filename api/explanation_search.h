/* explanation_search.h: searching explanations, for the files that word the question and the answer. */
#ifndef STEERD_API_EXPLANATION_SEARCH_H
#define STEERD_API_EXPLANATION_SEARCH_H

#include "api/call.h"

/* Runs a search against the store, with the server's time limit. Without a store nothing is found. `field` is named
 * in errors about the words. */
int search_run(struct api_call *call, struct store_search *search, const char *field, struct store_hit **hits,
               size_t *n, bool *more, struct error *error) MUST_CHECK;

/* id, snippet, rank: what a hit has besides the explanation's columns. */
void search_hit_members(struct json_writer *w, const struct store_hit *hit);

#endif
