/* shapes.h: what endpoints answer, in a notation that people read in /docs and machines get as JSON schemas in /openapi.json.
 *
 *   text  integer  number  boolean  null  any     a value
 *   [S]                                           an array of S
 *   {name: S, other?: S}                          an object; other? may be absent; nothing else is in it
 *   {name: S, ...}  {*: S}                        ... there may be more; any names, all of shape S
 *   S?                                            S or null
 *   S|S                                           one of them
 *   @Name                                         a shape with a name of its own
 *
 * A blank stands behind each ':' and ',' and nowhere else. The HTTP tests hold every reply they get against these. */
#ifndef STEERD_API_SHAPES_H
#define STEERD_API_SHAPES_H

#include "api/route.h"
#include "core/base/json_writer.h"

struct shape {
  int (*handler)(struct api_call *call, struct error *error);
  const char *body;  /* of the JSON reply; NULL: the reply is no JSON */
  const char *types; /* content types separated by blanks, first the one that nobody has to ask for; NULL: application/json */
  int status;        /* 0: 200 */
  const char *event; /* of what an event of a stream carries as its data, where that is no `body` */
};

/* What a route answers. NULL when nobody has written it down. */
const struct shape *shape_of(const struct route *row);

/* What the events of a reply carry; NULL: it has no such stream. */
const char *shape_event(const struct shape *shape);

/* The shape as a JSON schema: one object. */
void shape_write(struct json_writer *w, const char *body);

/* The shapes with names, i from 0 on; NULL behind the last. */
const char *shape_name(size_t i, const char **body);

#endif
