/* shares.h: steering results that somebody chose to keep under a link. */
#ifndef STEERD_API_SHARES_H
#define STEERD_API_SHARES_H

#include "api/call.h"

/* Keeps what was asked and what came out, each the members of a JSON object; *id lives as long as the call. */
int share_keep(struct api_call *call, const char *model, struct buffer *request, struct buffer *reply,
               const char **id, struct error *error) MUST_CHECK;

/* The page that shows a share; NULL only when out of memory. */
const char *share_url(struct api_call *call, const char *id, struct error *error) MUST_CHECK;

#endif
